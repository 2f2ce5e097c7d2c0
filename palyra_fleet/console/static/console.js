// What the pages cannot do by themselves: sign in, act with a reason, and stay up to date.
// No page holds a token: the session is in a cookie that scripts cannot read, and changes carry the
// page's CSRF token in a header.
"use strict";

const find = (selector) => document.querySelector(selector);
const csrf = find('meta[name="csrf-token"]').content;

async function post(url, body, once) {
  const headers = { "x-palyra-csrf-token": csrf };
  if (once !== undefined) headers["Idempotency-Key"] = once;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(url, {
    method: "POST", headers, credentials: "same-origin",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 401 && !url.endsWith("/login")) location.assign("/console/login");
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `The fleet answered ${answer.status}.`);
  }
  return answer;
}

function tell(place, text) {
  place.textContent = text;
  place.hidden = text === "";
}

// --- signing in and out -----------------------------------------------------------------------

find("#sign-in")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = find("#sign-in-wrong");
  tell(wrong, "");
  try {
    await post("/console/v1/auth/login", { token: find("#token").value });
    location.assign(event.target.dataset.next);
  } catch (error) {
    tell(wrong, error.message);
    find("#token").select();
  }
});

find("#sign-out")?.addEventListener("click", async () => {
  await post("/console/v1/auth/logout").catch(() => undefined);
  location.assign("/console/login");
});

// --- changes, each with its reason ------------------------------------------------------------

const ask = find("#ask");
let asked = null;

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.post) openAsk(button);
  if (button?.dataset.invoke) invoke(button);
  if (button?.id === "ask-cancel") ask.close();
  if (button?.id === "verify") verify();
  if (button?.id === "labels-cancel") endRelabel();
});

function openAsk(button) {
  asked = { url: button.dataset.post, from: button };
  find("#ask-title").textContent = button.dataset.title;
  find("#ask-what").textContent = button.dataset.what;
  find("#ask-do").textContent = button.dataset.title;
  find("#ask-reason").value = "";
  const minutes = find("#ask-minutes");
  minutes.disabled = find("#ask-minutes-line").hidden = button.dataset.minutes === undefined;
  minutes.value = button.dataset.minutes ?? "";
  tell(find("#ask-wrong"), "");
  ask.showModal();
  find("#ask-reason").focus();
}

ask.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const act = find("#ask-do");
  act.disabled = true;
  try {
    const body = { reason: find("#ask-reason").value };
    const minutes = find("#ask-minutes");
    if (!minutes.disabled) body.deadline_ms = Number(minutes.value) * 60000;
    await post(asked.url, body);
    ask.close();
    await refresh();
    find("#main").focus();
  } catch (error) {
    tell(find("#ask-wrong"), error.message);
  } finally {
    act.disabled = false;
  }
});

async function invoke(button) {
  button.disabled = true;
  const place = find("#answer");
  try {
    const answer = await post(button.dataset.invoke, { capability: "system.health" });
    find("#answer-text").textContent = JSON.stringify((await answer.json()).result, null, 2);
  } catch (error) {
    find("#answer-text").textContent = error.message;
  }
  place.hidden = false;
  button.disabled = false;
}

async function verify() {
  const say = (tone, text) => { find("#verified").className = tone; tell(find("#verified"), text); };
  say("", "verifying…");
  try {
    const answer = await post("/console/v1/events/verify");
    say("chip good", `${(await answer.json()).entries} entries, whole`);
  } catch (error) {
    say("wrong", error.message);
  }
}

const submits = { mint, grant, labels: relabel };

document.addEventListener("submit", (event) => {
  const submit = submits[event.target.id];
  if (submit === undefined) return;
  event.preventDefault();
  submit(event.target);
});

// The key stays until the grant is made or the fields change, so that a second try is no second
// grant.
let grantKey = null;

document.addEventListener("input", (event) => {
  if (event.target.form?.id === "grant") grantKey = null;
  const edited = event.target.closest("[data-live=edited]");
  if (edited) edited.dataset.live = "keep";
});

async function grant(form) {
  const body = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  body.ttl_ms = Number(find("#grant-minutes").value) * 60000;
  body.read_only = find("#grant-read-only").checked;
  grantKey ??= crypto.randomUUID();
  const act = form.querySelector("button");
  act.disabled = true;
  tell(find("#grant-wrong"), "");
  find("#grant-said").textContent = "";
  try {
    await post("/console/v1/grants", body, grantKey);
    grantKey = null;
    find("#grant-said").textContent = `${body.run_id} is approved`;
    form.reset();
    await refresh();
  } catch (error) {
    tell(find("#grant-wrong"), error.message);
  } finally {
    act.disabled = false;
  }
}

// What was changed in the form is sent, and nothing else: somebody else may have changed the others.
async function relabel(form) {
  const act = form.querySelector("button");
  act.disabled = true;
  tell(find("#labels-wrong"), "");
  try {
    const before = new Map(Object.entries(JSON.parse(form.dataset.before)));
    const after = readLabels(form);
    const labels = Object.fromEntries([...after].filter(([key, value]) => before.get(key) !== value));
    const remove = [...before.keys()].filter((key) => !after.has(key));
    if (Object.keys(labels).length + remove.length === 0) throw new Error("No label is changed.");
    await post(form.dataset.url, { reason: find("#labels-reason").value, labels, remove });
    await endRelabel();
  } catch (error) {
    tell(find("#labels-wrong"), error.message);
    find("#labels-text").focus();
  } finally {
    act.disabled = false;
  }
}

function readLabels(form) {
  const written = new RegExp(`^(?:${form.dataset.pattern})$`);
  const found = new Map();
  find("#labels-text").value.split("\n").map((line) => line.trim()).forEach((line, index) => {
    if (line === "") return;
    const [key, ...value] = line.split("=");
    if (!written.test(line)) throw new Error(`Line ${index + 1}: expected KEY or KEY=VALUE, not "${line}".`);
    if (found.has(key)) throw new Error(`Line ${index + 1}: ${key} is there twice.`);
    found.set(key, value.join("="));
  });
  return found;
}

async function endRelabel() {
  const folded = find("#relabel");
  folded.dataset.live = "edited";
  folded.open = false;
  find("#labels").reset();
  tell(find("#labels-wrong"), "");
  await refresh();
  find("#relabel > summary")?.focus();
}

async function mint() {
  const answer = await post("/console/v1/pairing/requests/code", { method: find("#mint-method").value });
  const minted = (await answer.json()).pairing_code;
  const drawn = await post("/console/v1/pairing/qr", { text: minted.code });
  find("#minted-qr").src = "data:image/svg+xml;base64," + btoa(await drawn.text());
  find("#minted-code").textContent = minted.code;
  find("#minted-until").textContent = new Date(minted.expires_at_unix_ms).toLocaleTimeString();
  find("#minted").hidden = false;
}

// --- up to date -------------------------------------------------------------------------------

// The page is fetched again and its parts put in place, but for what somebody is working in: what is
// always kept, and what is from the first letter that somebody changed in it (`edited`). What the
// page was about may be gone (404): the page that says so takes its place.
async function refresh() {
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (answer.redirected && new URL(answer.url).pathname === "/console/login") {
    location.assign(answer.url);
    return;
  }
  if (!answer.ok && answer.status !== 404) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = fresh.querySelector("#main");
  if (!main) return;  // a problem, not a page
  const giveBack = holdFocus();
  const kept = new Map([...document.querySelectorAll("main [data-live=keep]")].map((one) => [one.id || one.className, one]));
  main.querySelectorAll("[data-live]").forEach((one) => {
    const mine = kept.get(one.id || one.className);
    if (mine) one.replaceWith(mine);
  });
  keepOpen(find("main"), main);
  const scrollBack = holdScroll();
  find("main").replaceChildren(...main.childNodes);
  scrollBack();
  giveBack();
  sayAgo();
}

// Who works by keyboard stays where they are: in the same field at the same letter, on the same
// button or link. Where that has gone, at the page, not at its top.
function holdFocus() {
  const one = document.activeElement;
  if (!one?.closest("main") || one.id === "main") return () => undefined;
  const same = sameAs(one);
  const at = same === null ? 0 : [...document.querySelectorAll(same)].indexOf(one);
  const [from, to] = [one.selectionStart, one.selectionEnd];
  return () => {
    const now = one.isConnected ? one : same && document.querySelectorAll(same)[at];
    (now ?? find("#main")).focus({ preventScroll: true });
    if (now && now.value === one.value && typeof from === "number") now.setSelectionRange(from, to);
  };
}

// A selector of what does the same in the page as it is now.
function sameAs(one) {
  if (one.id) return `main #${CSS.escape(one.id)}`;
  const name = ["data-post", "data-invoke", "href", "aria-label"].find((each) => one.hasAttribute(each));
  if (name) return `main ${one.localName}[${name}="${CSS.escape(one.getAttribute(name))}"]`;
  const folded = one.localName === "summary" ? one.parentElement.id : "";
  return folded ? `main #${CSS.escape(folded)} > summary` : null;
}

// What counts all the time is put in place by itself, so that nobody loses a place in the page.
async function recount() {
  const own = [...document.querySelectorAll("main [data-traffic]")];
  if (own.length === 0) return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (!answer.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  own.forEach((one) => {
    const now = fresh.getElementById(one.id);
    if (now && one.isConnected && !one.contains(document.activeElement)) {
      keepOpen(one, now);
      one.replaceWith(now);
    }
  });
  sayAgo();
}

// What somebody unfolded stays so.
function keepOpen(before, after) {
  before.querySelectorAll("details[id][open]").forEach((one) => {
    const same = after.querySelector(`#${one.id}`);
    if (same) same.open = true;
  });
}

// Regions that scroll by themselves stay where somebody scrolled them.
function holdScroll() {
  const regions = () => [...document.querySelectorAll("main [role=region][aria-label]")];
  const held = new Map(regions().map((one) => [one.getAttribute("aria-label"), [one.scrollLeft, one.scrollTop]]));
  return () => regions().forEach((one) => one.scrollTo(...(held.get(one.getAttribute("aria-label")) ?? [0, 0])));
}

function sayAgo() {
  const now = Date.now();
  document.querySelectorAll("main time[datetime]").forEach((one) => {
    const ends = one.dataset.ends !== undefined;
    const seconds = (now - Date.parse(one.dateTime)) / 1000 * (ends ? -1 : 1);
    if (ends && seconds <= 0) one.textContent = "now";
    if (seconds < 0 || (ends && seconds === 0) || seconds > 86400) return;
    const words = seconds < 60 ? `${Math.round(seconds)} s`
      : seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
    one.textContent = ends ? `in ${words}` : `${words} ago`;
  });
}

// The stream ends with the session, and with the fleet: ask which, and begin again or sign in.
async function comeBack() {
  try {
    const answer = await fetch("/console/v1/auth/session", { credentials: "same-origin" });
    if (answer.status === 401) location.assign("/console/login");
    else live();
  } catch {
    setTimeout(comeBack, 2000);
  }
}

function live() {
  const badge = find("#live");
  if (!badge) return;
  let waiting = null;
  const say = (tone, text) => { badge.className = `chip ${tone}`; badge.textContent = text; };
  const source = new EventSource("/console/events");
  source.addEventListener("here", () => say("good", "live"));
  source.addEventListener("entry", () => {
    if (waiting === null) waiting = setTimeout(() => { waiting = null; refresh(); }, 150);
  });
  source.addEventListener("traffic", recount);
  source.addEventListener("error", () => {
    say("warn", "not live");
    if (source.readyState === EventSource.CLOSED) setTimeout(comeBack, 2000);
  });
}

sayAgo();
setInterval(sayAgo, 10000);
live();
