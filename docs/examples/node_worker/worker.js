"use strict";

// A worker in Node.js that speaks contract 0.4. Add tools of your own to TOOLS.

const { once } = require("node:events");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const { parseArgs, promisify } = require("node:util");

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../../proto/snakepit_bridge.proto");
const PROTO_OPTIONS = { keepCase: true, longs: Number, defaults: true };
const CHANNEL_OPTIONS = {
  "grpc.max_receive_message_length": -1,
  "grpc.max_send_message_length": -1,
  "grpc.enable_http_proxy": 0,
};

const DIED = 3;
const MAX_SESSIONS = 1000;

async function main() {
  const options = readOptions();
  const { BridgeService } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO, PROTO_OPTIONS)).snakepit.bridge;
  const host = new Host(
    new BridgeService(options["elixir-address"], grpc.credentials.createInsecure(), CHANNEL_OPTIONS),
  );
  const server = new grpc.Server(CHANNEL_OPTIONS);
  server.addService(BridgeService.service, handlers(host));
  process.on("SIGTERM", () => stop(server));
  const bind = promisify(server.bindAsync).bind(server);
  const port = await bind(`127.0.0.1:${options.port}`, grpc.ServerCredentials.createInsecure());
  console.log(`GRPC_READY:${port}`);
}

function readOptions() {
  const { values } = parseArgs({
    options: { "elixir-address": { type: "string" }, port: { type: "string", default: "0" } },
    strict: false, // flags that we do not know are no error
  });
  if (typeof values["elixir-address"] !== "string") {
    throw new Error("--elixir-address host:port is needed");
  }
  return values;
}

function stop(server) {
  server.forceShutdown();
  process.exit(0);
}

// The service. RPCs that are not here are UNIMPLEMENTED.

function handlers(host) {
  return {
    Ping: (call, reply) => answer(call, reply, { message: call.request.message, server_time: now() }),
    Heartbeat: (call, reply) => answer(call, reply, { server_time: now(), session_valid: true }),
    ExecuteTool: async (call, reply) => answer(call, reply, await executeTool(call, host)),
    ExecuteStreamingTool: (call) => executeStreamingTool(call, host),
  };
}

function answer(call, reply, response) {
  call.sendMetadata(readsRaw());
  reply(null, response);
}

// Tells the peer that large arrays may come in raw bytes. Otherwise they come as JSON.
function readsRaw() {
  const metadata = new grpc.Metadata();
  metadata.set("snakepit-large-values", "raw");
  return metadata;
}

async function executeTool(call, host) {
  const started = performance.now();
  const response = await resultOf(call, host).then(
    (result) => ({ success: true, result }),
    (error) => ({ success: false, error_message: errorText(error) }),
  );
  return { ...response, execution_time_ms: Math.round(performance.now() - started) };
}

async function resultOf(call, host) {
  return encodeParameter(await start(call.request, host, signalOf(call), false));
}

async function executeStreamingTool(call, host) {
  const signal = signalOf(call);
  try {
    await sendChunks(call, await start(call.request, host, signal, true), signal);
    call.end();
  } catch (error) {
    if (!signal.aborted) {
      call.emit("error", { code: grpc.status.INTERNAL, details: errorText(error) });
    }
  }
}

async function sendChunks(call, values, signal) {
  let number = 0;
  const send = async (data, is_final) => {
    signal.throwIfAborted();
    const chunk_id = `${call.request.tool_name}-${number++}`;
    if (!call.write({ chunk_id, data, is_final })) {
      await once(call, "drain", { signal });
    }
  };
  for await (const value of values) {
    await send(encodeJson(value), false);
  }
  await send(Buffer.alloc(0), true);
}

// The result of a tool, or what a streaming tool yields.
async function start(request, host, signal, streaming) {
  const sessionId = request.session_id;
  await host.prepare(sessionId);
  const tool = findTool(request.tool_name, streaming);
  const args = decodeArguments(tool, request);
  signal.throwIfAborted();
  return tool.run(args, { host, sessionId, signal });
}

function findTool(name, streaming) {
  const tool = TOOLS.find((candidate) => candidate.name === name);
  if (!tool) {
    throw new Error(`no tool "${name}"; there are: ${TOOLS.map((known) => known.name).join(", ")}`);
  }
  if (tool.supports_streaming !== streaming) {
    throw new Error(`tool "${name}" ${streaming ? "does not stream" : "streams"}`);
  }
  return tool;
}

function decodeArguments(tool, { parameters, binary_parameters: binaries }) {
  const names = Object.keys(tool.parameters);
  const missing = names.find((name) => !Object.hasOwn(parameters, name));
  if (missing) {
    throw new Error(`tool "${tool.name}" needs the argument "${missing}"`);
  }
  return Object.fromEntries(names.map((name) => [name, decodeArgument(name, parameters[name], binaries[name])]));
}

function decodeArgument(name, packed, binary) {
  try {
    return decode(packed, binary);
  } catch (error) {
    throw new Error(`argument "${name}": ${error.message}`);
  }
}

function signalOf(call) {
  const controller = new AbortController();
  call.on("cancelled", () => controller.abort());
  return controller.signal;
}

// Half a surrogate pair has no UTF-8, and would make the answer unreadable.
function errorText(error) {
  return (error.details || error.message).toWellFormed();
}

function now() {
  const milliseconds = Date.now();
  return { seconds: Math.floor(milliseconds / 1000), nanos: (milliseconds % 1000) * 1e6 };
}

// What the worker asks of its host

class Host {
  #client;
  #sessions = new Map(); // session id -> promise that it is prepared

  constructor(client) {
    this.#client = client;
  }

  // Once per session; requests that arrive meanwhile wait for the same answer.
  prepare(sessionId) {
    if (!this.#sessions.has(sessionId)) {
      const prepared = this.#introduce(sessionId);
      prepared.catch(() => this.#sessions.delete(sessionId));
      this.#sessions.set(sessionId, prepared);
      this.#forgetOldest();
    }
    return this.#sessions.get(sessionId);
  }

  async getVariable(name, { sessionId, signal }) {
    const request = { session_id: sessionId, variable_identifier: name };
    const { variable } = await this.#ask("GetVariable", request, signal);
    return decode(variable.value, variable.binary_value);
  }

  // Gives the new version.
  async setVariable(name, value, context) {
    const request = { session_id: context.sessionId, variable_identifier: name, value: encodeVariable(value) };
    try {
      return (await this.#command("SetVariable", request, context.signal)).new_version;
    } catch (error) {
      if (error.code !== grpc.status.NOT_FOUND) {
        throw error;
      }
      await this.#registerVariable(name, value, context);
      return 1;
    }
  }

  async callTool(name, args, { sessionId, signal }) {
    const parameters = Object.fromEntries(Object.entries(args).map(([key, value]) => [key, encodeParameter(value)]));
    const request = { session_id: sessionId, tool_name: name, parameters };
    const { result, binary_result } = await this.#command("ExecuteElixirTool", request, signal);
    return result ? decode(result, binary_result) : null;
  }

  async toolNames({ sessionId, signal }) {
    const { tools } = await this.#ask("GetExposedElixirTools", { session_id: sessionId }, signal);
    return tools.map((tool) => tool.name).sort();
  }

  async #introduce(sessionId) {
    await this.#command("InitializeSession", { session_id: sessionId });
    await this.#command("RegisterTools", {
      session_id: sessionId,
      tools: TOOLS.map(registration),
      worker_id: String(process.pid),
    });
  }

  #forgetOldest() {
    if (this.#sessions.size > MAX_SESSIONS) {
      const [oldest] = this.#sessions.keys();
      this.#sessions.delete(oldest);
    }
  }

  async #registerVariable(name, value, { sessionId, signal }) {
    const request = { session_id: sessionId, name, type: variableType(value), initial_value: encodeVariable(value) };
    await this.#command("RegisterVariable", request, signal);
  }

  // For RPCs whose answer tells whether they succeeded.
  async #command(method, request, signal) {
    const response = await this.#ask(method, request, signal);
    if (!response.success) {
      throw new Error(response.error_message);
    }
    return response;
  }

  #ask(method, request, signal) {
    return new Promise((resolve, reject) => {
      const settle = (error, response) => (error ? reject(error) : resolve(response));
      const call = this.#client[method](request, readsRaw(), settle);
      signal?.addEventListener("abort", () => call.cancel(), { once: true });
    });
  }
}

function registration({ name, description, parameters, supports_streaming }) {
  return {
    name,
    description,
    parameters: Object.entries(parameters).map(([parameter, type]) => ({ name: parameter, type, required: true })),
    supports_streaming,
  };
}

// Values in google.protobuf.Any

const PREFIX = "type.googleapis.com/";
const NOT_FINITE = ["NaN", "Infinity", "-Infinity"];
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const DTYPES = {
  float64: { size: 8, read: (view, at) => view.getFloat64(at, true) },
  float32: { size: 4, read: (view, at) => view.getFloat32(at, true) },
  int64: { size: 8, read: (view, at) => Number(view.getBigInt64(at, true)) },
  int32: { size: 4, read: (view, at) => view.getInt32(at, true) },
  uint8: { size: 1, read: (view, at) => view.getUint8(at) },
};

// The value of an Any and of the binary field that belongs to it.
function decode({ type_url, value }, binary) {
  const type = type_url.slice(type_url.lastIndexOf("/") + 1);
  if (type === "google.protobuf.StringValue") {
    return decodeStringValue(value);
  }
  if (type.startsWith("snakepit.") && type.endsWith(".binary")) {
    return decodeBinary(decodeJson(value), binary);
  }
  if (type === "snakepit.float") {
    return decodeFloat(value);
  }
  if (type === "google.protobuf.Value" || type.startsWith("snakepit.")) {
    return decodeJson(value);
  }
  throw new Error(`cannot read a value of type "${type_url}"`);
}

// Historic peers put raw JSON under the type of a message.
function decodeStringValue(bytes) {
  return bytes.length === 0 ? "" : (readStringMessage(bytes) ?? decodeJson(bytes));
}

// By hand, because a protobuf parser also takes messages that go on with other fields.
function readStringMessage(bytes) {
  const varint = bytes.subarray(1, 6);
  const last = varint.findIndex((byte) => byte < 0x80);
  if (bytes[0] !== 0x0a || last < 0) {
    return null;
  }
  const length = varint.subarray(0, last + 1).reduce((sum, byte, i) => sum + (byte & 0x7f) * 2 ** (7 * i), 0);
  const text = bytes.subarray(last + 2);
  return text.length === length ? decodeUtf8(text) : null;
}

function decodeUtf8(bytes) {
  try {
    return UTF8.decode(bytes);
  } catch {
    return null;
  }
}

function decodeFloat(bytes) {
  const value = decodeJson(bytes);
  return NOT_FINITE.includes(value) ? Number(value) : value;
}

// Gives a tensor with flat data, or the list of an embedding.
function decodeBinary({ shape, dtype, binary_format, type }, bytes) {
  if (binary_format !== "raw" || !Object.hasOwn(DTYPES, dtype)) {
    throw new Error(`cannot read binary data of format "${binary_format}" and dtype "${dtype}"`);
  }
  const { size, read } = DTYPES[dtype];
  const length = product(shape);
  if (bytes?.length !== length * size) {
    throw new Error(`${bytes?.length ?? 0} bytes are no ${dtype} of shape [${shape}]`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = Array.from({ length }, (_, i) => read(view, i * size));
  return type === "embedding" ? data : { shape, data };
}

function decodeJson(bytes) {
  return JSON.parse(UTF8.decode(bytes));
}

function product(numbers) {
  return numbers.reduce((result, number) => result * number, 1);
}

function encodeParameter(value) {
  return { type_url: `${PREFIX}google.protobuf.StringValue`, value: encodeJson(value) };
}

function encodeJson(value) {
  return Buffer.from(JSON.stringify(value, refuseNotFinite));
}

// JSON.stringify would write null.
function refuseNotFinite(key, value) {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new Error(`${value} has no JSON`);
  }
  return value;
}

function encodeVariable(value) {
  const type = variableType(value);
  return {
    type_url: `${PREFIX}snakepit.${type}`,
    value: type === "float" ? Buffer.from(floatJson(value)) : encodeJson(value),
  };
}

function variableType(value) {
  if (value === null) {
    throw new Error("no variable holds null");
  }
  if (typeof value === "number") {
    // Beyond the safe integers the digits are no longer exact, as a float's are not.
    return Number.isSafeInteger(value) ? "integer" : "float";
  }
  if (typeof value === "object") {
    return Array.isArray(value) ? "list" : "map";
  }
  return typeof value;
}

function floatJson(value) {
  if (!Number.isFinite(value)) {
    return `"${value}"`;
  }
  const text = String(value);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

// Tools. `run` gets the arguments by name, and a context: the host, the session's id, and a signal that is aborted when
// the call is cancelled.

const TOOLS = [
  {
    name: "echo",
    description: "Gives its argument back.",
    parameters: { value: "any" },
    supports_streaming: false,
    run: ({ value }) => value,
  },
  {
    name: "add",
    description: "Adds two numbers.",
    parameters: { a: "float", b: "float" },
    supports_streaming: false,
    run: ({ a, b }) => a + b,
  },
  {
    name: "fail",
    description: "Fails with a message.",
    parameters: { message: "string" },
    supports_streaming: false,
    run: ({ message }) => {
      throw new Error(message);
    },
  },
  {
    name: "slow",
    description: "Waits, without blocking other calls.",
    parameters: { seconds: "float" },
    supports_streaming: false,
    run: ({ seconds }, { signal }) => sleep(seconds * 1000, "done", { signal }),
  },
  {
    name: "count",
    description: "Counts from 0, n times.",
    parameters: { n: "integer" },
    supports_streaming: true,
    run: count,
  },
  {
    name: "fail_after",
    description: "Counts, and then fails with a message.",
    parameters: { n: "integer", message: "string" },
    supports_streaming: true,
    run: function* ({ n, message }) {
      yield* count({ n });
      throw new Error(message);
    },
  },
  {
    name: "get_var",
    description: "Gives the value of a variable of the session.",
    parameters: { name: "string" },
    supports_streaming: false,
    run: ({ name }, context) => context.host.getVariable(name, context),
  },
  {
    name: "set_var",
    description: "Sets a variable of the session, or makes it; gives its new version.",
    parameters: { name: "string", value: "any" },
    supports_streaming: false,
    run: ({ name, value }, context) => context.host.setVariable(name, value, context),
  },
  {
    name: "call_host",
    description: "Calls a tool of the host.",
    parameters: { tool: "string", args: "map" },
    supports_streaming: false,
    run: ({ tool, args }, context) => context.host.callTool(tool, args, context),
  },
  {
    name: "host_tools",
    description: "Lists the names of the host's tools.",
    parameters: {},
    supports_streaming: false,
    run: (_, context) => context.host.toolNames(context),
  },
  {
    name: "sum",
    description: "Adds up the numbers of a tensor.",
    parameters: { tensor: "tensor" },
    supports_streaming: false,
    run: ({ tensor }) => sum(tensor),
  },
  {
    name: "die",
    description: "Ends the process at once.",
    parameters: {},
    supports_streaming: false,
    run: () => process.exit(DIED),
  },
];

function* count({ n }) {
  for (let i = 0; i < n; i++) {
    yield { i };
  }
}

function sum({ shape, data }) {
  const numbers = [data].flat(Infinity);
  if (numbers.length !== product(shape)) {
    throw new Error(`${numbers.length} numbers are no tensor of shape [${shape}]`);
  }
  // NaN and the infinities are texts in the JSON of a tensor.
  return numbers.reduce((total, number) => total + Number(number), 0);
}

main();
