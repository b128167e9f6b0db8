// Prints what has happened to a training job, and what happens until it has ended. A watch that breaks off goes on
// behind the last event.
import { setTimeout as pause } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import { connect, run } from "./contract.js";

const ENDED = ["STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED"];
const PATIENCE = 60; // Attempts in a row without an answer, once there was one.

function show(event, state) {
  const happened = event[event.part];
  if (event.part === "training_job") {
    if (happened.state !== state || ENDED.includes(state)) console.log(happened.state); // The job also comes with each bit of progress.
  } else if (event.part === "metrics") {
    console.log(`step ${happened.step}\tloss ${happened.loss.toFixed(4)}`);
  } else if (event.part === "checkpoint_step") {
    console.log(`checkpoint of step ${happened}`);
  } else if (event.part === "log_line") {
    console.log(`# ${happened}`);
  }
}

await run("node watch-job.js ADDRESS trainingJobs/JOB", 2, async (address, name) => {
  const { trainer } = connect(address);
  let state = "";
  let after_event = "0";
  let failures = PATIENCE; // A server that was never there is not waited for.
  while (!ENDED.includes(state)) {
    try {
      for await (const event of trainer.WatchTrainingJob({ name, after_event })) {
        failures = 0;
        show(event, state);
        if (event.part === "training_job") {
          state = event.training_job.state;
        } else {
          after_event = event.event;
        }
      }
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE || ++failures > PATIENCE) {
        throw error;
      }
      console.error(`${address} is away; trying again`);
      await pause(1000);
    }
  }
  process.exitCode = state === "STATE_SUCCEEDED" ? 0 : 1;
});
