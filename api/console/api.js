// The service over HTTP: JSON in and out, refusals as errors with all that was wrong.

/** Most rows of a list that a page asks for. */
export const MOST_ROWS = 20000;
let forgeryToken = null;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || "The service did not answer.");
    this.status = status;
    this.code = problem.code || "";
    this.faults = problem.errors || [];
  }
}

async function asked(path, { method = "GET", body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (method !== "GET" && forgeryToken) sent["X-CSRF-Token"] = forgeryToken;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal,
    });
  } catch {
    throw new Refused(0, {});
  }
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // not a problem document: a proxy's page, say
  }
  if (answer.status === 401 && forgeryToken) dispatchEvent(new Event("unseated")); // the key was revoked, say
  throw new Refused(answer.status, problem);
}

export const get = async (path, signal) => (await asked(path, { signal })).json();
export const post = async (path, body = {}, headers = {}) =>
  (await asked(path, { method: "POST", body, headers })).json();
export const remove = async (path, headers) => (await asked(path, { method: "DELETE", headers })).json();
/** Something, after its ETag. */
export async function tagged(path) {
  const answer = await asked(path);
  return [answer.headers.get("etag"), await answer.json()];
}
export const floats = async (path, signal) => new Float32Array(await (await asked(path, { signal })).arrayBuffer());

/** All items of a list, page after page; `isCut` where there are more than a page shows. */
export async function all(path, signal) {
  const items = [];
  let cursor = null;
  do {
    const joined = path + (path.includes("?") ? "&" : "?");
    const page = await get(`${joined}limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, signal);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < MOST_ROWS);
  items.isCut = cursor !== null;
  return items;
}

const seated = (session) => {
  forgeryToken = session.csrf_token;
  return session;
};
export const whoAmI = async () => seated(await get("console/session"));
export const signIn = async (key) => seated(await post("console/session", { key }));
export const signOut = async () => seated(await remove("console/session"));

/** A name that no other request has, so that sending it again does nothing twice. */
export const newName = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;
