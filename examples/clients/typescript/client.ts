// Clients of the services, and what a failed call says.
import { credentials, status, type ServiceError } from "@grpc/grpc-js";
import { ErrorInfo } from "./generated/google/rpc/error_details.js";
import { Status } from "./generated/google/rpc/status.js";
import { TraceStoreClient } from "./generated/tunix_rt/v1/trace_store.js";
import { TrainerClient } from "./generated/tunix_rt/v1/trainer.js";

/** Clients of the services at an address, such as 127.0.0.1:50050 where `tunix-rt up` serves all of them. */
export function connect(address: string): { traceStore: TraceStoreClient; trainer: TrainerClient } {
  const insecure = credentials.createInsecure();
  return { traceStore: new TraceStoreClient(address, insecure), trainer: new TrainerClient(address, insecure) };
}

/** Whether an error comes of a call. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/** The reason to branch on, if the server gave one, and the message for people. */
export function explain(error: unknown): string {
  if (!isServiceError(error)) {
    return String(error);
  }
  const [details] = error.metadata.get("grpc-status-details-bin");
  const found = Buffer.isBuffer(details) ? Status.decode(details).details : [];
  const info = found.find((detail) => detail.typeUrl.endsWith("/google.rpc.ErrorInfo"));
  const code = status[error.code];
  return `${info ? `${code} (${ErrorInfo.decode(info.value).reason})` : code}: ${error.details}`;
}

/** Runs a program with the words of its command line; a failed call is one line on standard error, and exit code 1. */
export async function run(usage: string, count: number, main: (...words: string[]) => Promise<void>): Promise<void> {
  const words = process.argv.slice(2);
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1)); // Such as `| head`.
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
