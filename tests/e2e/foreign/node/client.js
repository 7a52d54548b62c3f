// Each operation with @grpc/grpc-js, over what @grpc/proto-loader makes of the proto file at run time.
// usage: node client.js PROTO HOST:PORT. Prints one JSON object; anything that is not as it should be ends it.
'use strict';

const assert = require('assert');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [proto, address] = process.argv.slice(2);
// 64-bit numbers come as text, since a double holds 53 bits of them.
const loaded = loader.loadSync(proto, { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true });
const { KeyValueService } = grpc.loadPackageDefinition(loaded).kv.v1;
const client = new KeyValueService(address, grpc.credentials.createInsecure());

const call = (method, request) =>
  new Promise((done, failed) => client[method](request, (error, answer) => (error ? failed(error) : done(answer))));

// All messages of a stream, or as many as `enough` says; then it is cancelled.
const streamed = (method, request, enough = () => false) =>
  new Promise((done, failed) => {
    const messages = [];
    const stream = client[method](request);
    stream.on('data', (message) => {
      messages.push(message);
      if (enough(messages)) stream.cancel();
    });
    stream.on('error', (error) => (error.code === grpc.status.CANCELLED ? done(messages) : failed(error)));
    stream.on('end', () => done(messages));
  });

const told = (messages) => messages.flatMap((message) => message.events);
const grows = (...revisions) => revisions.every((each, at) => at === 0 || BigInt(each) > BigInt(revisions[at - 1]));

async function main() {
  const found = {};
  const bytes = Buffer.from([0xff, 0, 0xfe, 0x80]);

  // Bytes, conditions, etags.
  const made = await call('Set', { key: 'js/a', data: bytes, condition: { absent: true } });
  found.made = made.success;
  const again = await call('Set', { key: 'js/a', value: 'x', condition: { absent: true } });
  found.again = [again.success, again.condition_failed];
  const got = await call('Get', { key: 'js/a', as_data: true, with_etag: true });
  found.bytes = [got.data.equals(bytes), got.etag === again.etag];
  found.not_text = await call('Get', { key: 'js/a' }).catch((error) => error.code);
  const swapped = await call('Set', { key: 'js/a', value: 'one', condition: { etag: got.etag } });
  const touched = await call('Touch', { key: 'js/a', ttl: 1000, condition: { value: Buffer.from('one') } });
  found.touched = [swapped.success, touched.success, touched.found, (await call('Touch', { key: 'js/no' })).found];
  const removed = await call('Delete', { key: 'js/a', condition: { present: true } });
  found.order = grows(made.revision, swapped.revision, touched.revision, removed.revision);
  found.batch = [
    (await call('MSet', { key_values: { 'js/t': 'text' }, data: { 'js/u': bytes } })).success,
    Object.keys((await call('MGet', { keys: ['js/t', 'js/u'], as_data: true })).data).sort(),
    (await call('MGet', { keys: ['js/t', 'js/u'] })).not_text,
  ];

  // Numbers, beyond what a double holds.
  const first = await call('Increment', { key: 'js/n', delta: '9007199254740993' });
  const second = await call('Increment', { key: 'js/n', delta: '-2', ttl: 5 });
  found.numbers = [first.value, first.created, second.value, second.created];
  found.not_a_number = (await call('Increment', { key: 'js/t', delta: 1 })).success;

  // Transactions.
  const moved = await call('Transact', {
    checks: [{ key: 'js/t', condition: { value: Buffer.from('text') } }, { key: 'js/v', condition: { absent: true } }],
    mutations: [
      { delete: { key: 'js/t' } },
      { set: { key: 'js/v', value: 'moved' } },
      { increment: { key: 'js/n', delta: 1 } },
      { touch: { key: 'js/u', ttl: 100 } },
    ],
  });
  found.moved = [moved.success, moved.results.map((result) => [result.found, result.value, result.created])];
  found.refused = (await call('Transact', {
    checks: [{ key: 'js/v', condition: { present: true } }, { key: 'js/v', condition: { absent: true } }],
    mutations: [{ delete: { key: 'js/v' } }],
  })).failed_check;

  // A pipeline.
  found.pipeline = await new Promise((done, failed) => {
    const answers = {};
    const stream = client.Pipeline();
    stream.on('data', (answer) => (answers[answer.id] = answer[answer.result] && answer.result));
    stream.on('error', failed);
    stream.on('end', () => done(answers));
    stream.write({ id: 1, increment: { key: 'js/n', delta: 1 } });
    stream.write({ id: 2, touch: { key: 'js/n', ttl: 100 } });
    stream.write({ id: 3, set: { key: 'js/p', value: 'x', condition: { absent: true } } });
    stream.end();
  });

  // Ranges.
  for (const name of ['a', 'b/1', 'b/2', 'c']) await call('Set', { key: `js/r/${name}`, value: name });
  const scan = (request) => call('ScanKeys', { prefix: 'js/r/', ...request });
  found.reverse = (await scan({ reverse: true, limit: 2 })).keys;
  found.range = (await scan({ start: 'js/r/b', end: 'js/r/c' })).keys;
  found.count = (await scan({ count_only: true })).count;
  const folders = await scan({ delimiter: '/' });
  found.folders = [folders.keys, folders.prefixes];
  const entries = (await call('ScanKeyValues', { prefix: 'js/r/', reverse: true })).entries;
  found.entries = entries.map((entry) => [entry.key, entry.data.toString()]);
  const streamedEntries = (await streamed('ScanStream', { prefix: 'js/r/' })).flatMap((message) => message.entries);
  found.stream = streamedEntries.map((entry) => [entry.key, entry.data.toString()]);

  // Watch, and resume.
  const from = folders.revision;
  await call('Set', { key: 'js/r/d', value: 'd' });
  const gone = await call('DeleteRange', { prefix: 'js/r/b/' });
  found.gone = gone.deleted;
  const seen = await streamed('Watch', { prefix: 'js/r/', after_revision: from, with_values: true }, (messages) =>
    told(messages).length >= 2);
  found.watched = told(seen).map((event) => [event.type, event.key, event.end, event.data.toString()]);
  const middle = seen.find((message) => message.events.length).revision;
  const rest = await streamed('Watch', { prefix: 'js/r/', after_revision: middle }, (messages) => told(messages).length);
  found.resumed = told(rest).map((event) => event.type);
  found.compacted = (await streamed('Watch', { prefix: 'js/', after_revision: 1 })).map((message) => message.compacted);
  found.all = (await call('DeleteRange', { prefix: 'js/', dry_run: true })).deleted;
  assert((await call('DeleteRange', {})).error);
  client.close();
  console.log(JSON.stringify(found));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
