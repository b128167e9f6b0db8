// Prints what has happened to a training job, and what happens until it has ended. A watch that breaks off goes on
// behind the last event.
import { setTimeout as pause } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { connect, isServiceError, run } from "./client.js";
import { WatchTrainingJobRequest, type WatchTrainingJobResponse } from "./generated/tunix_rt/v1/trainer.js";
import { TrainingJob_State as State } from "./generated/tunix_rt/v1/training_job.js";

const ENDED: readonly State[] = [State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED];
const PATIENCE = 60; // Attempts in a row without an answer, once there was one.

function show({ part }: WatchTrainingJobResponse, state: State): void {
  switch (part?.$case) {
    case "trainingJob":
      if (part.value.state !== state || ENDED.includes(state)) {
        console.log(part.value.state); // The job also comes with each bit of progress.
      }
      break;
    case "metrics":
      console.log(`step ${part.value.step}\tloss ${part.value.loss.toFixed(4)}`);
      break;
    case "checkpointStep":
      console.log(`checkpoint of step ${part.value}`);
      break;
    case "logLine":
      console.log(`# ${part.value}`);
      break;
  }
}

await run("node built/watch-job.js ADDRESS trainingJobs/JOB", 2, async (address, name) => {
  const { trainer } = connect(address);
  let state = State.STATE_UNSPECIFIED;
  let afterEvent = "0";
  let failures = PATIENCE; // A server that was never there is not waited for.
  while (!ENDED.includes(state)) {
    try {
      const request = WatchTrainingJobRequest.fromPartial({ name, afterEvent });
      const events: AsyncIterable<WatchTrainingJobResponse> = trainer.watchTrainingJob(request);
      for await (const event of events) {
        failures = 0;
        show(event, state);
        if (event.part?.$case === "trainingJob") {
          state = event.part.value.state;
        } else {
          afterEvent = event.event;
        }
      }
    } catch (error) {
      if (!isServiceError(error) || error.code !== status.UNAVAILABLE || ++failures > PATIENCE) {
        throw error;
      }
      console.error(`${address} is away; trying again`);
      await pause(1000);
    }
  }
  process.exitCode = state === State.STATE_SUCCEEDED ? 0 : 1;
});
