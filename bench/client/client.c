/* gRPC load over clear HTTP/2 (https://nghttp2.org): plays messages from a file, and checks what is answered.
 *
 * usage: client [-p | -r] [-c CONNECTIONS] [-m IN_FLIGHT] [-e MICROSECONDS] [-s SECONDS] [-H 'NAME: VALUE']...
 *               HOST:PORT PATH FILE LEAST MOST
 *
 * FILE holds gRPC messages, each with its prefix of five bytes; they are sent in turn, again and again, and each
 * connection begins at another one. An answer's message has LEAST to MOST bytes. Without -p a message is a call of its
 * own. With -p a connection has one stream, which carries all messages: as many as are allowed unanswered, and as many
 * in a DATA frame as there is room for; field 1 of message and answer is the number of the message in FILE, from 1. With
 * -e there are no more calls than one each so many microseconds. With -r a call has any number of answers, and what is
 * counted with its time is calls that have ended.
 *
 * After SECONDS nothing more is begun, and what is under way is waited for, but with -r dropped. Then one line: `counted`
 * and the number of answers, how many came within a second, p50 and p99 in microseconds from the sending to the answer's
 * end, what share of a core this program has used, the longest of those times, and how many messages, and bytes of them,
 * came within a second. Anything that is not as it should be ends it with status 1 and a sentence.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PREFIX 5                /* bytes before a message: not compressed, and its length */
#define WINDOW (1 << 30)        /* bytes that a server may send unasked: more than there ever are */
#define CHUNK (256 << 10)       /* bytes that are read or written at once */
#define LONGEST (10 * 1000000)  /* microseconds; what took longer counts as this */
#define PATIENCE 60000          /* milliseconds in which something must happen */

/* A call, and what has come of its answers. Without -p there is one answer to a call. */
struct call {
    struct connection *connection;
    int64_t sent;
    const uint8_t *rest;        /* of the message that is being sent */
    size_t left;
    uint8_t head[PREFIX + 6];   /* of the answer that is being read: prefix and, with -p, its number */
    size_t got, size;           /* bytes of that answer so far, and in all once its prefix is there */
    int answers, status;
};

struct connection {
    int socket, greeted, waits_for_room;
    nghttp2_session *session;
    struct call *calls, **idle; /* the idle ones in a stack */
    size_t idles, next;         /* the message that is sent next */
    uint8_t *out;               /* what is to be written: `pending` bytes from `written` on */
    size_t written, pending;
    int32_t stream;             /* with -p */
    int deferred;
    size_t unanswered;
    int64_t *sent_at;           /* by the number of the message; 0 when it is not under way */
};

static int pipeline, streaming, in_flight = 1, over;
static const char *authority;
static nghttp2_nv headers[16];
static size_t header_count, message_count, least, most, live;
static uint8_t *messages;
static size_t *offsets;         /* of each message in `messages`, and the end */
static int64_t now;
static uint64_t answered, answered_in_time, parts_in_time, bytes_in_time;
static int64_t longest;
static uint32_t waits[LONGEST + 1];  /* how many answers took so many microseconds */
static char said[256];          /* the server's last grpc-message */

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load client: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t clock_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/* Bytes of a message and its prefix. */
static size_t whole_size(const uint8_t *prefix) {
    return PREFIX + ((size_t)prefix[1] << 24 | prefix[2] << 16 | prefix[3] << 8 | prefix[4]);
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* ---- calls and answers ---- */

static void count(int64_t sent) {
    int64_t wait = now - sent;
    waits[wait < 0 ? 0 : wait > LONGEST ? LONGEST : wait]++;
    if (wait > longest) longest = wait;
    answered++;
    answered_in_time += !over;
}

static void load_message(struct call *call) {
    struct connection *connection = call->connection;
    call->rest = messages + offsets[connection->next];
    call->left = offsets[connection->next + 1] - offsets[connection->next];
    connection->next = (connection->next + 1) % message_count;
}

static size_t copy_message(struct call *call, uint8_t *to, size_t room) {
    size_t size = call->left < room ? call->left : room;
    memcpy(to, call->rest, size);
    call->rest += size;
    call->left -= size;
    return size;
}

static ssize_t send_one(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                        nghttp2_data_source *source, void *of) {
    struct call *call = source->ptr;
    size_t size = copy_message(call, to, room);
    if (!call->left) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return size;
}

static ssize_t send_many(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *of) {
    struct call *call = source->ptr;
    struct connection *connection = of;
    size_t size = 0;
    while (size < room) {
        if (!call->left) {
            if (over || connection->unanswered == (size_t)in_flight) break;
            connection->sent_at[connection->next] = now;
            connection->unanswered++;
            load_message(call);
        }
        size += copy_message(call, to + size, room - size);
    }
    if (over && !call->left) *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (!size) connection->deferred = 1;
    return connection->deferred ? NGHTTP2_ERR_DEFERRED : (ssize_t)size;
}

static void begin(struct call *call) {
    struct connection *connection = call->connection;
    nghttp2_data_provider source = {{.ptr = call}, pipeline ? send_many : send_one};
    call->sent = now;
    call->got = call->answers = 0;
    call->status = -1;
    if (!pipeline) load_message(call);
    connection->stream = nghttp2_submit_request(connection->session, NULL, headers, header_count, &source, call);
    if (connection->stream < 0) fail("a call cannot be made: %s", nghttp2_strerror(connection->stream));
    live++;
}

/* With -p: which message this answers. */
static void answer_to(struct connection *connection, const uint8_t *message, size_t size) {
    size_t number = 0, at = 1;
    for (int shift = 0; at < size && at < 6; shift += 7) {
        number |= (size_t)(message[at] & 0x7f) << shift;
        if (!(message[at++] & 0x80)) break;
    }
    if (message[0] != 8 || number < 1 || number > message_count || !connection->sent_at[number - 1])
        fail("an answer to message %zu, which is not under way", number);
    count(connection->sent_at[number - 1]);
    connection->sent_at[number - 1] = 0;
    connection->unanswered--;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size, void *of) {
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    while (size) {
        /* First the prefix, which says the size; then the head; then what is only counted. */
        size_t until = call->got < PREFIX ? PREFIX : call->got < sizeof call->head ? sizeof call->head : call->size;
        if (call->got >= PREFIX && until > call->size) until = call->size;
        size_t part = size < until - call->got ? size : until - call->got;
        if (call->got < sizeof call->head) memcpy(call->head + call->got, data, part);
        call->got += part;
        data += part;
        size -= part;
        if (call->got == PREFIX) {
            call->size = whole_size(call->head);
            if (call->size < PREFIX + least || call->size > PREFIX + most)
                fail("an answer of %zu bytes, and not of %zu to %zu", call->size - PREFIX, least, most);
        }
        if (call->got >= PREFIX && call->got == call->size) {
            if (pipeline) answer_to(call->connection, call->head + PREFIX, call->size - PREFIX);
            call->answers++;
            parts_in_time += !over;
            bytes_in_time += over ? 0 : call->size - PREFIX;
            call->got = 0;
        }
    }
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t value_size, uint8_t flags, void *of) {
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    /* A value ends with a zero. */
    if (name_size == 11 && !memcmp(name, "grpc-status", 11)) call->status = atoi((const char *)value);
    else if (name_size == 12 && !memcmp(name, "grpc-message", 12))
        snprintf(said, sizeof said, "%.*s", (int)value_size, (const char *)value);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *of) {
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    struct connection *connection = of;
    if (error) fail("a stream was reset: %s", nghttp2_http2_strerror(error));
    if (call->status) fail("grpc-status %d: %s", call->status, said);
    if (call->got || (pipeline ? connection->unanswered != 0 : !streaming && call->answers != 1))
        fail("%zu answers are missing, or part of one", pipeline ? connection->unanswered : (size_t)1);
    if (pipeline && !over) fail("the server ended the stream");
    if (!pipeline) count(call->sent);
    live--;
    connection->idle[connection->idles++] = call;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *of) {
    if (frame->hd.type == NGHTTP2_SETTINGS) ((struct connection *)of)->greeted = 1;
    return 0;
}

/* ---- connections ---- */

/* Write what the session has to send, as far as there is room. */
static void write_out(struct connection *connection, int epoll) {
    for (;;) {
        const uint8_t *data;
        ssize_t size = 0;
        if (!connection->pending) connection->written = 0;
        while (!connection->written && connection->pending < CHUNK
               && (size = nghttp2_session_mem_send(connection->session, &data)) > 0) {
            /* A frame at a time, of 16 KiB at most. */
            memcpy(connection->out + connection->pending, data, size);
            connection->pending += size;
        }
        if (size < 0) fail("cannot send: %s", nghttp2_strerror(size));
        if (!connection->pending) break;
        size = send(connection->socket, connection->out + connection->written, connection->pending,
                    MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN) break;
        if (size < 0) fail("the connection broke: %s", strerror(errno));
        connection->written += size;
        connection->pending -= size;
    }
    if (connection->waits_for_room != (connection->pending > 0)) {
        connection->waits_for_room = connection->pending > 0;
        struct epoll_event event = {EPOLLIN | (connection->waits_for_room ? EPOLLOUT : 0), {.ptr = connection}};
        epoll_ctl(epoll, EPOLL_CTL_MOD, connection->socket, &event);
    }
}

static void read_in(struct connection *connection, int flags) {
    static uint8_t in[CHUNK];
    ssize_t size = recv(connection->socket, in, sizeof in, flags);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) fail("the server closed a connection: %s", size ? strerror(errno) : "end of stream");
    now = clock_us();
    size = nghttp2_session_mem_recv(connection->session, in, size);
    if (size < 0) fail("not HTTP/2: %s", nghttp2_strerror(size));
}

static void open_connection(struct connection *connection, const struct sockaddr_in *address, size_t first) {
    nghttp2_session_callbacks *callbacks;
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    int one = 1;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_client_new(&connection->session, callbacks, connection);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
    connection->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection->socket, (const struct sockaddr *)address, sizeof *address))
        fail("cannot connect to %s: %s", authority, strerror(errno));
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connection->out = malloc(CHUNK + (64 << 10));
    if (pipeline) connection->sent_at = calloc(message_count, sizeof *connection->sent_at);
    connection->idles = pipeline ? 1 : in_flight;
    connection->calls = calloc(connection->idles, sizeof *connection->calls);
    connection->idle = calloc(connection->idles, sizeof *connection->idle);
    for (size_t index = 0; index < connection->idles; index++) {
        connection->calls[index].connection = connection;
        connection->idle[index] = &connection->calls[index];
    }
    connection->next = first;
    /* Greetings are not measured. */
    write_out(connection, -1);
    while (!connection->greeted) read_in(connection, 0);
}

/* Begin what may be begun: calls that are idle, or more of a stream's messages. */
static void go_on(struct connection *connection, int epoll, int calls) {
    if (connection->deferred && (over || connection->unanswered < (size_t)in_flight)) {
        connection->deferred = 0;
        nghttp2_session_resume_data(connection->session, connection->stream);
    }
    while (!over && connection->idles && calls-- > 0) begin(connection->idle[--connection->idles]);
    write_out(connection, epoll);
}

static void run(struct connection *connections, int number, int64_t every, double seconds) {
    struct epoll_event events[256];
    int epoll = epoll_create1(0), all = every ? 0 : in_flight;
    for (int index = 0; index < number; index++) {
        struct epoll_event event = {EPOLLIN, {.ptr = &connections[index]}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, connections[index].socket, &event);
    }
    int64_t start = now = clock_us(), end = start + (int64_t)(seconds * 1e6), tick = start, turn = 0;
    double used = cpu_seconds(), share = 0;
    for (int index = 0; index < number; index++) go_on(&connections[index], epoll, all);
    while (!over || (live && !streaming)) {
        int64_t until = (every && tick < end ? tick : end) - now;
        int ready = epoll_wait(epoll, events, 256, over ? PATIENCE : until < 0 ? 0 : (int)(until + 999) / 1000);
        if (over && !ready) fail("no answer within %d s", PATIENCE / 1000);
        now = clock_us();
        if (!over && now >= end) {
            over = 1;
            share = (cpu_seconds() - used) / ((now - start) / 1e6);
            seconds = (now - start) / 1e6;
            for (int index = 0; index < number; index++) go_on(&connections[index], epoll, 0);
        }
        for (int index = 0; index < ready; index++) {
            struct connection *connection = events[index].data.ptr;
            if (events[index].events & ~EPOLLOUT) read_in(connection, MSG_DONTWAIT);
            go_on(connection, epoll, all);
        }
        for (; every && !over && tick <= now; tick = tick + every > now ? tick + every : now + 1)
            go_on(&connections[turn++ % number], epoll, 1);
    }
    double rate = answered_in_time / seconds;
    uint64_t so_far = 0;
    int percentiles[2] = {-1, -1};
    for (int wait = 0; so_far < answered; wait++) {
        so_far += waits[wait];
        if (percentiles[0] < 0 && so_far * 2 > answered) percentiles[0] = wait;
        if (percentiles[1] < 0 && so_far * 100 > answered * 99) percentiles[1] = wait;
    }
    printf("counted %lu %.2f %d %d %.3f %ld %.2f %.0f\n", answered, rate, percentiles[0], percentiles[1], share,
           (long)longest, parts_in_time / seconds, bytes_in_time / seconds);
}

/* ---- what is asked ---- */

static void add_header(const char *name, const char *value) {
    if (header_count == sizeof headers / sizeof *headers) fail("too many headers");
    headers[header_count++] = (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                                           NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static void read_messages(const char *name) {
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail("%s: %s", name, strerror(errno));
    size_t size = ftell(file), at = 0;
    rewind(file);
    messages = malloc(size + PREFIX);
    if (fread(messages, 1, size, file) != size) fail("%s cannot be read", name);
    fclose(file);
    offsets = malloc((size / PREFIX + 1) * sizeof *offsets);
    while (at + PREFIX <= size) {
        offsets[message_count++] = at;
        at += whole_size(messages + at);
    }
    if (at != size || !message_count) fail("%s does not hold whole messages", name);
    offsets[message_count] = size;
}

int main(int count, char **words) {
    int number = 1, option;
    int64_t every = 0;
    double seconds = 1;
    char *own[8], *colon;
    size_t owns = 0;
    while ((option = getopt(count, words, "prc:m:e:s:H:")) != -1) switch (option) {
        case 'p': pipeline = 1; break;
        case 'r': streaming = 1; break;
        case 'c': number = atoi(optarg); break;
        case 'm': in_flight = atoi(optarg); break;
        case 'e': every = atoll(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'H': if (owns == 8) fail("too many headers"); own[owns++] = optarg; break;
        default: return 2;
    }
    if (count - optind != 5) fail("HOST:PORT PATH FILE LEAST MOST");
    authority = words[optind];
    read_messages(words[optind + 2]);
    least = strtoul(words[optind + 3], NULL, 10);
    most = strtoul(words[optind + 4], NULL, 10);
    if (pipeline && (size_t)in_flight > message_count) fail("%d in flight need as many messages", in_flight);
    add_header(":method", "POST");
    add_header(":scheme", "http");
    add_header(":path", words[optind + 1]);
    add_header(":authority", authority);
    add_header("content-type", "application/grpc");
    add_header("te", "trailers");
    for (size_t index = 0; index < owns; index++) {
        if (!(colon = strstr(own[index], ": "))) fail("not a header: %s", own[index]);
        *colon = 0;
        add_header(own[index], colon + 2);
    }
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    if (!(colon = strchr(authority, ':')) || snprintf(host, sizeof host, "%.*s", (int)(colon - authority), authority) >= 64
        || inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("not an IPv4 address and a port: %s", authority);
    address.sin_port = htons(atoi(colon + 1));
    struct connection *connections = calloc(number, sizeof *connections);
    for (int index = 0; index < number; index++)
        open_connection(&connections[index], &address, message_count * index / number);
    run(connections, number, every, seconds);
    return 0;
}
