// The dashboard. Texts of workers and callers are set as text only, and never become markup.

import {bytes, makeCharts, seconds, whole} from "./charts.js";

const SAMPLES = 300, SHORTEST = 60, EVENTS = 200, LINES = 500;
const SILENCE = 10000; // milliseconds without news after which the connection counts as lost
const STORED = `snakepit token of ${location.pathname}`;
const LEVELS = {DEBUG: 10, INFO: 20, WARNING: 30, ERROR: 40, CRITICAL: 50};
const LOOKS = {
  ready: "good", busy: "busy", spare: "good", starting: "waiting", restarting: "warn", draining: "warn", stopped: "bad",
  quarantined: "bad", running: "busy", sent: "busy", queued: "waiting", waiting: "waiting", stopping: "bad",
};

const $ = (id) => document.getElementById(id);
const drawCharts = makeCharts($("charts"));
let token = takeToken();
let samples = [], events = [], lines = [], latest = null, isPaused = false, asked = new Set();

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(STORED, given);
    history.replaceState(null, "", location.pathname + location.search); // it is not to be seen, or bookmarked
  }
  return given || sessionStorage.getItem(STORED);
}

function announce(text) { $("announce").textContent = text; }

// The connection.

function showConnection(text, look) {
  if ($("connection").textContent === text) return;
  $("connection").textContent = text;
  $("connection").className = `badge ${look}`;
  announce(`Dashboard: ${text}`);
}

function ask(why) {
  $("board").hidden = true;
  $("ask").hidden = false;
  if (why) $("ask-why").textContent = why;
  showConnection("not connected", "warn");
  $("token").focus();
}

async function follow() {
  for (let failures = 0; ; failures += 1) {
    if (!token) return ask("");
    try {
      const outcome = await readEvents(() => { failures = 0; });
      if (outcome === "refused") {
        sessionStorage.removeItem(STORED);
        token = null;
        return ask("This is not the token of this dashboard. Each start of the application may have another one.");
      }
      if (outcome === "end") return showConnection("the pool has closed", "bad");
    } catch (error) {
      console.info("the stream of events broke:", error);
    }
    showConnection("not connected; trying again", "warn");
    await new Promise((resolve) => setTimeout(resolve, Math.min(5000, 500 * 2 ** failures)));
  }
}

async function readEvents(connected) {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), SILENCE);
  try {
    const response = await fetch("events", {headers: {Authorization: `Bearer ${token}`}, cache: "no-store", signal: abort.signal});
    if (response.status === 401) return "refused";
    if (!response.ok) throw new Error(`status ${response.status}`);
    samples = []; events = []; lines = []; // the first picture has all of them
    let text = "";
    for await (const part of parts(response.body.pipeThrough(new TextDecoderStream()).getReader())) {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENCE);
      text += part;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const found = Object.fromEntries(text.slice(0, end).split("\n").map((line) => line.split(/: (.*)/s, 2)));
        if (found.event === "end") return "end";
        if (found.event === "picture") {
          connected();
          take(JSON.parse(found.data));
        }
      }
    }
    return "broken";
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

async function* parts(reader) {
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    yield value;
  }
}

async function cancel(id, tool, button) {
  if (button.getAttribute("aria-disabled") === "true") return;
  asked.add(id);
  button.setAttribute("aria-disabled", "true"); // it keeps the focus
  try {
    const response = await fetch(`calls/${id}/cancel`, {
      method: "POST", headers: {Authorization: `Bearer ${token}`, "Content-Type": "application/json"}, body: "{}",
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const {cancelled} = await response.json();
    announce(cancelled ? `Call ${id} of ${tool} is being stopped` : `Call ${id} of ${tool} was over already`);
  } catch (error) {
    asked.delete(id);
    announce(`Call ${id} of ${tool} could not be cancelled: ${error.message}`);
  }
}

// The page.

function take(picture) {
  samples = [...samples, ...picture.samples].slice(-SAMPLES);
  events = [...events, ...picture.events].slice(-EVENTS);
  lines = [...lines, ...picture.lines].slice(-LINES);
  latest = picture;
  $("ask").hidden = true;
  $("board").hidden = false;
  showConnection("live", "good");
  if (!isPaused) show();
}

function show() {
  const {about, stats, status} = latest;
  document.title = `${about.name} - snakepit`;
  $("name").textContent = about.name;
  $("about").textContent =
    `${status}, up for ${seconds(stats.uptime)}; ${about.adapter}; process ${about.pid}, Python ${about.python}, snakepit ${about.version}`;
  $("tile-workers").textContent = `${stats.ready} / ${stats.workers}`;
  $("tile-running").textContent = whole(stats.running);
  $("tile-queued").textContent = whole(stats.queued);
  $("tile-calls").textContent = whole(stats.calls);
  $("tile-failed").textContent = whole(stats.failed + stats.timed_out + stats.crashed);
  $("tile-restarts").textContent = whole(stats.restarts);
  const length = Math.max(SHORTEST, samples.length);
  $("charts-span").textContent = `the last ${length < 120 ? `${length} seconds` : `${Math.round(length / 60)} minutes`}`;
  drawCharts(samples, length);
  showCalls();
  showWorkers();
  showSessions();
  showEvents();
  showLog();
}

function showCalls() {
  const {calls, more_calls: more} = latest;
  asked = new Set([...asked].filter((id) => calls.some((call) => call.id === id)));
  fill("calls-table", calls, "No call is under way.", (call) => call.id, (call) => [
    cell(call.id, "number"), cell(call.tool + (call.is_stream ? " (stream)" : ""), "name"), badge(call.state),
    cell(seconds(call.queued), "number"), cell(call.worker_id ? seconds(call.on_worker) : "", "number"),
    cell(call.time_left === null ? "no limit" : seconds(Math.max(0, call.time_left)), "number"),
    cell(call.worker_id ?? ""), cell(call.session_id, "name"), cancelCell(call),
  ]);
  $("calls-count").textContent = whole(calls.length + more);
  $("calls-more").textContent = more ? `${whole(more)} more are not shown.` : "";
}

function cancelCell(call) {
  return (td) => {
    let button = td.querySelector("button");
    if (button === null) {
      button = document.createElement("button");
      button.type = "button";
      button.textContent = "Cancel";
      button.setAttribute("aria-label", `Cancel call ${call.id}, ${call.tool}`);
      button.addEventListener("click", () => cancel(call.id, call.tool, button));
      td.append(button);
    }
    button.setAttribute("aria-disabled", String(call.state === "stopping" || asked.has(call.id)));
  };
}

function showWorkers() {
  const {workers, more_workers: more, at} = latest;
  fill("workers-table", workers, "There is no worker.", (worker) => `${worker.id} ${worker.pid}`, (worker) => [
    cell(worker.id + (worker.spare ? " (spare)" : ""), "name"), badge(worker.state), cell(`${worker.pid ?? ""}${worker.node ? ` on ${worker.node}` : ""}`, "number"),
    cell(worker.memory ? bytes(worker.memory) : "", "number"), cell(whole(worker.calls), "number"),
    cell(whole(worker.restarts), "number"),
    cell(worker.pid === null ? "" : seconds(Math.max(0, at - worker.started)), "number"),
    cell(worker.latency === null ? "" : seconds(worker.latency), "number"),
  ]);
  $("workers-count").textContent = whole(workers.length + more);
  $("workers-more").textContent = more ? `${whole(more)} more are not shown.` : "";
}

function showSessions() {
  const {known, ids, count, calls} = latest.sessions;
  const listed = [...new Set([...ids, ...Object.keys(calls)])].sort(); // those that only calls name, too
  const more = known ? Math.max(0, count - listed.length) : 0;
  fill("sessions-table", listed, known ? "There is no session." : "Asking the store…", (id) => id, (id) => [
    cell(id, "name"), cell(whole(calls[id] ?? 0), "number"),
  ]);
  $("sessions-count").textContent = known ? whole(listed.length + more) : "";
  $("sessions-more").textContent = more ? `${whole(more)} more are not shown.` : "";
}

function showEvents() {
  fill("events-table", [...events].reverse(), "Nothing has happened yet.", (event) => event.number, (event) => [
    cell(clock(event.at)), cell(event.about + (event.pid ? ` (${event.pid})` : "")),
    cell(event.what, event.kind === "worker.crashed" ? "bad" : ""), cell(event.cause, "text"),
  ]);
}

function showLog() {
  const least = Number($("log-level").value);
  const shown = lines.filter((line) => (LEVELS[line.level] ?? 20) >= least).reverse();
  fill("log-table", shown, "No line was logged.", (line) => line.number, (line) => [
    cell(clock(line.at)), cell(line.level, line.level === "WARNING" ? "warn" : LEVELS[line.level] >= 40 ? "bad" : ""),
    cell(line.logger, "name"), cell(line.text, "text"),
  ]);
}

function clock(at) { return new Date(at * 1000).toLocaleTimeString("en-GB"); }

function cell(text, look = "") {
  return (td) => {
    if (td.textContent !== String(text)) td.textContent = text;
    if (td.className !== look) td.className = look;
    if (look === "name") td.title = text;
  };
}

function badge(state) {
  return (td) => {
    let span = td.querySelector("span");
    if (span === null) {
      span = document.createElement("span");
      td.append(span);
    }
    if (span.textContent !== state) span.textContent = state;
    span.className = `badge ${LOOKS[state] ?? ""}`;
  };
}

// Rows are kept by their keys, so that the focus, and what is selected, stays where it is.
function fill(id, items, whenEmpty, keyOf, cellsOf) {
  const body = $(id).tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.closest("tr") : null;
  const place = focused ? [...body.rows].indexOf(focused) : 0;
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let next = body.firstElementChild;
  for (const item of items) {
    const key = `item ${keyOf(item)}`, cells = cellsOf(item);
    let row = old.get(key);
    if (row === undefined) {
      row = document.createElement("tr");
      row.dataset.key = key;
      cells.forEach(() => row.append(document.createElement("td")));
    }
    old.delete(key);
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
    cells.forEach((write, at) => write(row.cells[at]));
  }
  for (const row of old.values()) row.remove();
  if (!items.length) {
    const row = body.insertRow();
    row.dataset.key = "empty";
    const td = row.insertCell();
    td.colSpan = $(id).tHead.rows[0].cells.length;
    td.className = "empty";
    td.textContent = whenEmpty;
  }
  if (focused && !focused.isConnected) keepFocus(body, place);
}

// The row that had the focus is gone: the next button gets it, else the section.
function keepFocus(body, place) {
  const buttons = [...body.querySelectorAll("button")];
  (buttons[Math.min(place, buttons.length - 1)] ?? body.closest(".scroll")).focus({preventScroll: true});
}

$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", String(isPaused));
  $("pause").textContent = isPaused ? "Go on" : "Pause updates";
  if (!isPaused && latest) show();
});
$("log-level").addEventListener("change", () => latest && showLog());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  sessionStorage.setItem(STORED, token);
  follow();
});
addEventListener("hashchange", () => {
  if (location.hash.includes("token=")) location.reload();
});
follow();
