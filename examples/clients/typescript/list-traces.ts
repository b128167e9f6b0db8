// Prints the name and prompt of each trace, page by page.
import { Metadata } from "@grpc/grpc-js";
import { connect, run } from "./client.js";
import { ListTracesRequest, type ListTracesResponse } from "./generated/tunix_rt/v1/trace_store.js";

await run("node built/list-traces.js ADDRESS", 1, async (address) => {
  const { traceStore } = connect(address);
  const list = (pageToken: string): Promise<ListTracesResponse> =>
    new Promise((resolve, reject) => {
      const request = ListTracesRequest.fromPartial({ pageSize: 100, pageToken });
      const options = { deadline: Date.now() + 30_000 };
      traceStore.listTraces(request, new Metadata(), options, (error, page) => (error ? reject(error) : resolve(page)));
    });
  let pageToken = "";
  do {
    const page = await list(pageToken);
    for (const trace of page.traces) {
      console.log(`${trace.name}\t${JSON.stringify(trace.prompt)}`);
    }
    pageToken = page.nextPageToken;
  } while (pageToken);
});
