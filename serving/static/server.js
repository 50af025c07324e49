// SPDX-License-Identifier: Apache-2.0
// Requests to the REST API; each error is an Error whose message names cause and fix.

const FIRST_WAIT = 150, LONGEST_WAIT = 1000; // milliseconds between two questions about a job

export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Does app.py still run? Then try again.");
  }
  if (answer.ok) return answer;
  let reason = `the server answered ${answer.status}; try again`;
  try {
    reason = (await answer.json()).error;
  } catch {
    // not the program's own answer
  }
  throw new Error(reason.charAt(0).toUpperCase() + reason.slice(1) + (/[.!?]$/.test(reason) ? "" : "."));
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
    await new Promise(resolve => setTimeout(resolve, wait));
    job = await getJson(`/api/jobs/${job.id}`);
  }
}

export function decodeBase64(text) {
  return new Blob([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))], { type: "image/png" });
}
