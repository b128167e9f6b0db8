// Prints the name and prompt of each trace, page by page.
import { call, connect, run } from "./contract.js";

await run("node list-traces.js ADDRESS", 1, async (address) => {
  const { traceStore } = connect(address);
  let page_token = "";
  do {
    const page = await call(traceStore, "ListTraces", { page_size: 100, page_token });
    for (const trace of page.traces) {
      console.log(`${trace.name}\t${JSON.stringify(trace.prompt)}`);
    }
    page_token = page.next_page_token;
  } while (page_token);
});
