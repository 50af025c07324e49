// SPDX-License-Identifier: Apache-2.0
// Requests to the REST API; each error is a RequestError, whose message names cause and fix.

const FIRST_WAIT = 150, LONGEST_WAIT = 1000; // milliseconds between two questions about a job
const MOST_FAILURES = 5, FAILURE_WAIT = 2000; // such questions that may fail in a row, and milliseconds between them

// `status` is the HTTP status of the server's answer, null if there was none.
export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new RequestError("The server does not answer. Does app.py still run? Then try again.", null);
  }
  if (answer.ok) return answer;
  let reason = `the server answered ${answer.status}; try again`;
  try {
    reason = (await answer.json()).error;
  } catch {
    // not the program's own answer
  }
  throw new RequestError(sentence(reason), answer.status);
}

// A reason or remark of the server, which begins with a small letter and ends without a full stop.
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

export async function getJson(path) {
  return (await request(path)).json();
}

export async function getBlob(path) {
  return (await request(path)).blob();
}

// Send fields and files; a field's value may be a string, a file {blob, name}, or a list of files.
export async function post(path, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const part of Array.isArray(value) ? value : [value]) {
      if (typeof part === "string") form.append(name, part);
      else form.append(name, part.blob, part.name);
    }
  }
  return (await request(path, { method: "POST", body: form })).json();
}

export function cancelJob(id) {
  // goes out also while the page is being closed
  return fetch(`/api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

// Ask for a job's state until it has ended; `onState(job)` follows it. Returns its last state.
export async function follow(job, onState) {
  for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 1.3)) {
    onState(job);
    if (job.state !== "queued" && job.state !== "running") return job;
    await pause(wait);
    job = await stateOf(job);
  }
}

// The translation goes on while the network is away, as after a laptop's sleep: only several failures in a row count.
async function stateOf(job) {
  for (let failures = 1; ; failures++) {
    try {
      return await getJson(`/api/jobs/${job.id}`);
    } catch (error) {
      const isLasting = error.status !== null && error.status < 500;
      if (isLasting || failures === MOST_FAILURES) throw error;
      await pause(FAILURE_WAIT);
    }
  }
}

function pause(milliseconds) {
  return new Promise(resolve => setTimeout(resolve, milliseconds));
}

export function decodeBase64(text) {
  return new Blob([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))], { type: "image/png" });
}
