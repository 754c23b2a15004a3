// One song with fetch: submit safely, poll politely, download. Node 18 or newer, no packages.
//
//   export ANTIPHON_BASE_URL=http://127.0.0.1:8000 ANTIPHON_API_KEY=aph_live_...
//   node examples/generate.mjs "slow jazz waltz, piano trio" waltz.mp3

import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const ATTEMPTS = 6;
const { ANTIPHON_BASE_URL: baseUrl, ANTIPHON_API_KEY: apiKey } = process.env;
const [prompt = "slow jazz waltz, piano trio", path = "song.mp3"] = process.argv.slice(2);

// One request, repeated where that can help: lost connections, and refusals that say so themselves.
async function call(path, { headers = {}, ...options } = {}) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    let pause = 0.5 * 2 ** attempt;
    try {
      const answer = await fetch(baseUrl + path, {
        ...options,
        headers: { authorization: `Bearer ${apiKey}`, ...headers },
      });
      const body = await answer.json();
      if (answer.ok) return body;
      if (!body.error.retryable) {
        console.error(`${answer.status} ${body.error.code}: ${body.error.message}`);
        process.exit(1);
      }
      pause = Number(answer.headers.get("retry-after") ?? pause);
    } catch (lost) {
      console.error(`${lost.message}; again in ${pause} s`);
    }
    await sleep(pause * 1000);
  }
  throw new Error("gave up");
}

// The key makes repeating safe: one key and one body are one job, however often they are sent.
let job = await call("/v1/audio/generations", {
  method: "POST",
  headers: { "content-type": "application/json", "idempotency-key": randomUUID() },
  body: JSON.stringify({ model: "sandbox", prompt, audio_duration: 10, format: "mp3" }),
});
for (let pause = 0.5; !["completed", "failed"].includes(job.status); pause = Math.min(pause * 1.5, 5)) {
  await sleep(pause * 1000);
  job = await call(job.poll_url);
}
if (job.error) {
  console.error(`no music, nothing charged: ${job.error.message}`);
  process.exit(1);
}
const song = await fetch(job.result.data[0].url);
if (!song.ok) throw new Error(`the download was answered with ${song.status}`);
await writeFile(path, Buffer.from(await song.arrayBuffer()));
console.log(`${path}: ${job.cost.billed_seconds} s for ${job.cost.usd} USD`);
