// Each operation with grpc-go, over what protoc-gen-go makes of the proto file.
// usage: client HOST:PORT. Prints one JSON object; anything that is not as it should be ends it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kv "example/kv"
)

// See the file client.js: both do the same.
func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connection, err := grpc.DialContext(ctx, os.Args[1], grpc.WithInsecure(), grpc.WithBlock())
	must(err)
	store := kv.NewKeyValueServiceClient(connection)
	found := map[string]interface{}{}
	data := []byte{0xff, 0, 0xfe, 0x80}

	// Bytes, conditions, etags.
	absent := &kv.Condition{Test: &kv.Condition_Absent{Absent: true}}
	present := &kv.Condition{Test: &kv.Condition_Present{Present: true}}
	set := func(request *kv.SetRequest) *kv.SetResponse {
		answer, err := store.Set(ctx, request)
		must(err)
		return answer
	}
	made := set(&kv.SetRequest{Key: "go/a", Data: data, Condition: absent})
	found["made"] = made.Success
	again := set(&kv.SetRequest{Key: "go/a", Value: "x", Condition: absent})
	found["again"] = list(again.Success, again.ConditionFailed)
	got, err := store.Get(ctx, &kv.GetRequest{Key: "go/a", AsData: true, WithEtag: true})
	must(err)
	found["bytes"] = list(bytes.Equal(got.Data, data), got.Etag == again.Etag)
	_, err = store.Get(ctx, &kv.GetRequest{Key: "go/a"})
	found["not_text"] = status.Code(err)
	swapped := set(&kv.SetRequest{Key: "go/a", Value: "one", Condition: &kv.Condition{Test: &kv.Condition_Etag{Etag: got.Etag}}})
	one := &kv.Condition{Test: &kv.Condition_Value{Value: []byte("one")}}
	touched, err := store.Touch(ctx, &kv.TouchRequest{Key: "go/a", Ttl: 1000, Condition: one})
	must(err)
	untouched, err := store.Touch(ctx, &kv.TouchRequest{Key: "go/no"})
	must(err)
	found["touched"] = list(swapped.Success, touched.Success, touched.Found, untouched.Found)
	removed, err := store.Delete(ctx, &kv.DeleteRequest{Key: "go/a", Condition: present})
	must(err)
	found["order"] = made.Revision < swapped.Revision && swapped.Revision < touched.Revision && touched.Revision < removed.Revision
	stored, err := store.MSet(ctx, &kv.MSetRequest{KeyValues: map[string]string{"go/t": "text"}, Data: map[string][]byte{"go/u": data}})
	must(err)
	asData, err := store.MGet(ctx, &kv.MGetRequest{Keys: []string{"go/t", "go/u"}, AsData: true})
	must(err)
	asText, err := store.MGet(ctx, &kv.MGetRequest{Keys: []string{"go/t", "go/u"}})
	must(err)
	keys := []string{}
	for key := range asData.Data {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	found["batch"] = list(stored.Success, keys, asText.NotText)

	// Numbers, beyond what a double holds.
	add := func(request *kv.IncrementRequest) *kv.IncrementResponse {
		answer, err := store.Increment(ctx, request)
		must(err)
		return answer
	}
	first := add(&kv.IncrementRequest{Key: "go/n", Delta: 9007199254740993})
	second := add(&kv.IncrementRequest{Key: "go/n", Delta: -2, Ttl: 5})
	found["numbers"] = list(fmt.Sprint(first.Value), first.Created, fmt.Sprint(second.Value), second.Created)
	found["not_a_number"] = add(&kv.IncrementRequest{Key: "go/t", Delta: 1}).Success

	// Transactions.
	text := &kv.Condition{Test: &kv.Condition_Value{Value: []byte("text")}}
	moved, err := store.Transact(ctx, &kv.TransactRequest{
		Checks: []*kv.Check{{Key: "go/t", Condition: text}, {Key: "go/v", Condition: absent}},
		Mutations: []*kv.Mutation{
			{Change: &kv.Mutation_Delete{Delete: &kv.DeleteRequest{Key: "go/t"}}},
			{Change: &kv.Mutation_Set{Set: &kv.SetRequest{Key: "go/v", Value: "moved"}}},
			{Change: &kv.Mutation_Increment{Increment: &kv.IncrementRequest{Key: "go/n", Delta: 1}}},
			{Change: &kv.Mutation_Touch{Touch: &kv.TouchRequest{Key: "go/u", Ttl: 100}}},
		},
	})
	must(err)
	results := []interface{}{}
	for _, result := range moved.Results {
		results = append(results, list(result.Found, fmt.Sprint(result.Value), result.Created))
	}
	found["moved"] = list(moved.Success, results)
	refused, err := store.Transact(ctx, &kv.TransactRequest{
		Checks:    []*kv.Check{{Key: "go/v", Condition: present}, {Key: "go/v", Condition: absent}},
		Mutations: []*kv.Mutation{{Change: &kv.Mutation_Delete{Delete: &kv.DeleteRequest{Key: "go/v"}}}},
	})
	must(err)
	found["refused"] = refused.FailedCheck

	// A pipeline.
	pipeline, err := store.Pipeline(ctx)
	must(err)
	must(pipeline.Send(&kv.PipelineRequest{Id: 1, Operation: &kv.PipelineRequest_Increment{Increment: &kv.IncrementRequest{Key: "go/n", Delta: 1}}}))
	must(pipeline.Send(&kv.PipelineRequest{Id: 2, Operation: &kv.PipelineRequest_Touch{Touch: &kv.TouchRequest{Key: "go/n", Ttl: 100}}}))
	must(pipeline.Send(&kv.PipelineRequest{Id: 3, Operation: &kv.PipelineRequest_Set{Set: &kv.SetRequest{Key: "go/p", Value: "x", Condition: absent}}}))
	must(pipeline.CloseSend())
	answers := map[string]string{}
	for {
		answer, err := pipeline.Recv()
		if err == io.EOF {
			break
		}
		must(err)
		kinds := map[bool]string{answer.GetIncrement() != nil: "increment", answer.GetTouch() != nil: "touch", answer.GetSet() != nil: "set"}
		answers[fmt.Sprint(answer.Id)] = kinds[true]
	}
	found["pipeline"] = answers

	// Ranges.
	for _, name := range []string{"a", "b/1", "b/2", "c"} {
		set(&kv.SetRequest{Key: "go/r/" + name, Value: name})
	}
	scan := func(request *kv.ScanRequest) *kv.ScanKeysResponse {
		request.Prefix = "go/r/"
		page, err := store.ScanKeys(ctx, request)
		must(err)
		return page
	}
	found["reverse"] = scan(&kv.ScanRequest{Reverse: true, Limit: 2}).Keys
	found["range"] = scan(&kv.ScanRequest{Start: "go/r/b", End: "go/r/c"}).Keys
	found["count"] = fmt.Sprint(scan(&kv.ScanRequest{CountOnly: true}).Count)
	folders := scan(&kv.ScanRequest{Delimiter: "/"})
	found["folders"] = list(folders.Keys, folders.Prefixes)
	page, err := store.ScanKeyValues(ctx, &kv.ScanRequest{Prefix: "go/r/", Reverse: true})
	must(err)
	found["entries"] = pairs(page.Entries)
	stream, err := store.ScanStream(ctx, &kv.ScanRequest{Prefix: "go/r/"})
	must(err)
	entries := []*kv.Entry{}
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			break
		}
		must(err)
		entries = append(entries, part.Entries...)
	}
	found["stream"] = pairs(entries)

	// Watch, and resume.
	set(&kv.SetRequest{Key: "go/r/d", Value: "d"})
	gone, err := store.DeleteRange(ctx, &kv.DeleteRangeRequest{Prefix: "go/r/b/"})
	must(err)
	found["gone"] = fmt.Sprint(gone.Deleted)
	var middle int64
	events := []interface{}{}
	watch := func(request *kv.WatchRequest, enough int, each func(message *kv.WatchResponse)) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := store.Watch(ctx, request)
		must(err)
		for number := 0; number < enough; {
			message, err := stream.Recv()
			if err == io.EOF {
				return
			}
			must(err)
			number += len(message.Events)
			each(message)
		}
	}
	watch(&kv.WatchRequest{Prefix: "go/r/", AfterRevision: folders.Revision, WithValues: true}, 2, func(message *kv.WatchResponse) {
		for _, event := range message.Events {
			events = append(events, list(event.Type.String(), event.Key, event.End, string(event.Data)))
			if middle == 0 {
				middle = message.Revision
			}
		}
	})
	found["watched"] = events
	resumed := []string{}
	watch(&kv.WatchRequest{Prefix: "go/r/", AfterRevision: middle}, 1, func(message *kv.WatchResponse) {
		for _, event := range message.Events {
			resumed = append(resumed, event.Type.String())
		}
	})
	found["resumed"] = resumed
	compacted := []bool{}
	watch(&kv.WatchRequest{Prefix: "go/", AfterRevision: 1}, 1, func(message *kv.WatchResponse) {
		compacted = append(compacted, message.Compacted)
	})
	found["compacted"] = compacted
	all, err := store.DeleteRange(ctx, &kv.DeleteRangeRequest{Prefix: "go/", DryRun: true})
	must(err)
	found["all"] = fmt.Sprint(all.Deleted)
	nothing, err := store.DeleteRange(ctx, &kv.DeleteRangeRequest{})
	must(err)
	if nothing.Error == "" || found["not_text"] != codes.FailedPrecondition {
		log.Fatal(nothing)
	}
	must(json.NewEncoder(os.Stdout).Encode(found))
}

func pairs(entries []*kv.Entry) []interface{} {
	pairs := []interface{}{}
	for _, entry := range entries {
		pairs = append(pairs, list(entry.Key, string(entry.Data)))
	}
	return pairs
}

func list(items ...interface{}) []interface{} { return items }

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
