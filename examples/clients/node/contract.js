// The contract, read from protos/ as it lies there: nothing is generated.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const contract = loadSync(
  ["tunix_rt/v1/trace_store.proto", "tunix_rt/v1/trainer.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  {
    includeDirs: [fileURLToPath(new URL("../../../protos", import.meta.url))],
    keepCase: true, // Fields are called as in the protos.
    longs: String, // A number of JavaScript does not hold 64 bits.
    enums: String,
    defaults: true,
    oneofs: true,
    json: true, // Reads the details of an error.
  },
);

const { TraceStore, Trainer } = grpc.loadPackageDefinition(contract).tunix_rt.v1;

/** Clients of the services at an address, such as 127.0.0.1:50050 where `tunix-rt up` serves all of them. */
export function connect(address) {
  const credentials = grpc.credentials.createInsecure();
  const options = { "grpc.max_receive_message_length": 4 << 20 };
  return {
    traceStore: new TraceStore(address, credentials, options),
    trainer: new Trainer(address, credentials, options),
  };
}

/** Calls a method that answers once, within some seconds. */
export function call(client, method, request, seconds = 30) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + seconds * 1000;
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

/** What a failed call says: the reason to branch on, if the server gave one, and the message for people. */
export function explain(error) {
  const [details] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const status = details ? contract["google.rpc.Status"].deserialize(details) : { details: [] };
  const info = status.details.find((detail) => detail["@type"]?.endsWith("google.rpc.ErrorInfo"));
  const code = grpc.status[error.code] ?? error.name;
  return `${info ? `${code} (${info.reason})` : code}: ${error.details ?? error.message}`;
}

/** Runs a program with the words of its command line; a failed call is one line on standard error, and exit code 1. */
export async function run(usage, count, main) {
  const words = process.argv.slice(2);
  process.stdout.on("error", (error) => process.exit(error.code === "EPIPE" ? 0 : 1)); // Such as `| head`.
  if (words.length !== count || words[0]?.startsWith("-")) {
    console.error(`usage: ${usage}`);
    process.exitCode = 2;
    return;
  }
  try {
    await main(...words);
  } catch (error) {
    console.error(explain(error));
    process.exitCode = 1;
  }
}
