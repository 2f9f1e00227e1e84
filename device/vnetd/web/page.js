// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
// Draws what "events" tells five times a second, and asks for steps with "command"; docs/vnetd.md
// describes both. What comes from a guest or a card is only ever set as text.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
// The middle of a drawing of rings, and the radius of each ring.
const MIDDLE = 110;
const RADIUS = { avail: 92, table: 74, used: 56 };
// Pictures that rates are taken over.
const HISTORY = 6;
// Milliseconds without a picture after which something hangs.
const SILENCE = 3000;

const byId = (id) => document.getElementById(id);

// The card that is shown, which a reload remembers.
let shown = decodeURIComponent(location.hash.slice(1)) || null;
let source = null;
let heard = performance.now();
let past = []; // pictures of the card that is shown, for rates
let listed = ""; // the last frame that is listed
const drawn = new Map(); // queue name → its elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A ring, of which parts can be painted: see `paint`.
function ring(radius, width, kind) {
  return shape("circle", {
    cx: MIDDLE, cy: MIDDLE, r: radius, class: kind, "stroke-width": width,
    transform: `rotate(-90 ${MIDDLE} ${MIDDLE})`,
  });
}

// Paints so many places from each first one on, given as pairs in order, of a ring with `size` places.
function paint(node, size, runs) {
  // Dashes and gaps take turns, beginning with a dash.
  const list = [];
  let at = 0;
  for (const [first, count] of runs) {
    if (list.length > 0) list.push(first - at);
    else if (first > 0) list.push(0, first);
    list.push(count);
    at = first + count;
  }
  if (list.length === 0) list.push(0);
  list.push(size - at);
  node.setAttribute("pathLength", size);
  node.setAttribute("stroke-dasharray", list.join(" "));
}

// The places from one index to another as runs that do not go past the end.
function between(size, from, to) {
  const count = Math.min((to - from) & 0xffff, size);
  const first = from & (size - 1);
  const tail = Math.min(count, size - first);
  const runs = [];
  if (count > tail) runs.push([0, count - tail]);
  if (tail > 0) runs.push([first, tail]);
  return runs;
}

// A hand that points at a ring from outside or from inside, or a dot on it.
function hand(radius, kind) {
  const y = MIDDLE - radius;
  const points = {
    outside: `${MIDDLE},${y - 5} ${MIDDLE - 6},${y - 17} ${MIDDLE + 6},${y - 17}`,
    inside: `${MIDDLE},${y + 5} ${MIDDLE - 6},${y + 17} ${MIDDLE + 6},${y + 17}`,
  }[kind];
  return points ? shape("polygon", { points }) : shape("circle", { cx: MIDDLE, cy: y, r: 4 });
}

// Moves a hand to an index, forward all the way.
function turn(entry, key, index, size) {
  const hand = entry.hands[key];
  const ahead = entry.turns[key] ? (index - entry.turns[key].index) & 0xffff : 0x10000;
  const total = ahead < 0x8000 ? entry.turns[key].total + ahead : index;
  entry.turns[key] = { index, total };
  // A hand that turns faster than the eye follows would not be where its ring says.
  hand.style.transition = ahead > size / 2 ? "none" : "";
  hand.style.transform = `rotate(${(total / size) * 360}deg)`;
}

const FIELDS = [
  ["avail", "avail index"], ["next-avail", "next to fetch"], ["used", "used index"],
  ["avail-event", "avail_event"], ["used-event", "used_event"],
  ["rate", "frames/s"], ["bits", "Mbit/s"], ["drops", "drops"],
  ["doorbells", "doorbells"], ["interrupts", "interrupts"],
];

// The elements of a queue, made once.
function queueBox(name) {
  const painted = {
    avail: ring(RADIUS.avail, 12, "device"),
    table: ring(RADIUS.table, 16, "device"),
    used: ring(RADIUS.used, 12, "fresh"),
  };
  const hands = {
    avail: shape("g", { class: "hand avail" }, hand(RADIUS.avail, "outside")),
    "next-avail": shape("g", { class: "hand next" }, hand(RADIUS.avail, "dot")),
    "avail-event": shape("g", { class: "hand event" }, hand(RADIUS.avail - 8, "dot")),
    used: shape("g", { class: "hand used" }, hand(RADIUS.used, "inside")),
    "used-event": shape("g", { class: "hand event" }, hand(RADIUS.used + 8, "dot")),
  };
  const size = shape("text", { x: MIDDLE, y: MIDDLE + 12 });
  const title = shape("text", { x: MIDDLE, y: MIDDLE - 3, class: "name" });
  title.textContent = name;
  const svg = shape("svg",
    { viewBox: `0 0 ${2 * MIDDLE} ${2 * MIDDLE}`, role: "img", "aria-label": `the rings of ${name}` },
    ring(RADIUS.avail, 12, "track"), ring(RADIUS.table, 16, "track"), ring(RADIUS.used, 12, "track"),
    ...Object.values(painted), ...Object.values(hands), title, size);
  const list = element("dl");
  const fields = {};
  for (const [key, label] of FIELDS) {
    fields[key] = element("dd", { "data-field": key });
    list.append(element("dt", {}, label), fields[key]);
  }
  const lamps = {};
  for (const key of ["doorbells", "interrupts"]) {
    lamps[key] = element("span", { class: "lamp", "aria-hidden": "true" });
    fields[key].append(lamps[key], document.createTextNode(""));
  }
  const state = element("span", { class: "queue-state", "data-field": "state" });
  const buttons = element("div", { class: "buttons" });
  for (const what of ["pause", "step", "resume"]) {
    const button = element("button", { "data-command": what, "aria-label": `${what} ${name}` }, what);
    button.addEventListener("click", () => command(what, name));
    buttons.append(button);
  }
  const next = element("p", { class: "next" });
  const box = element("article", { class: "queue", "data-queue": name }, svg,
    element("div", { class: "facts" }, element("h3", {}, name, " ", state), list, buttons), next);
  return { box, painted, hands, turns: {}, size, fields, lamps, state, buttons, next, before: null };
}

// A link into the data sheet that vnetd has with it.
function sheet(section) {
  const href = section.replace("docs/datasheet.md", "datasheet");
  const heading = section.replace(/^.*#\d*-?/, "").replaceAll("-", " ");
  return element("a", { href, target: "datasheet", title: section }, `data sheet: ${heading}`);
}

function drawRing(entry, ring) {
  entry.box.classList.toggle("off", !ring);
  for (const [key] of FIELDS.slice(0, 5)) entry.fields[key].textContent = ring ? ring[key] : "–";
  if (!ring) {
    entry.size.textContent = "";
    return;
  }
  const { size } = ring;
  entry.size.textContent = `${size} entries`;
  paint(entry.painted.avail, size, between(size, ring.used, ring.avail));
  paint(entry.painted.table, size, ring.owned);
  // Not past the end, as a driver that polls does not move it.
  const fresh = (ring.used - ring["used-event"]) & 0xffff;
  paint(entry.painted.used, size, fresh > size ? [] : between(size, ring["used-event"], ring.used));
  for (const key of Object.keys(entry.hands)) turn(entry, key, ring[key], size);
}

// A number beside a lamp that lights when it has grown.
function count(entry, key, value) {
  entry.fields[key].lastChild.data = value;
  entry.lamps[key].classList.toggle("lit", Boolean(entry.before) && value > entry.before[key]);
}

function drawQueue(queue, oldest, seconds) {
  let entry = drawn.get(queue.queue);
  if (!entry) {
    entry = queueBox(queue.queue);
    drawn.set(queue.queue, entry);
    byId("queues").append(entry.box);
  }
  const { fields } = entry;
  entry.box.classList.toggle("paused", queue.paused);
  entry.state.textContent = queue.error ? `stopped: ${queue.error}` :
    queue.paused ? "paused" : queue.ring ? queue.direction : "does not run";
  for (const button of entry.buttons.children) {
    button.disabled = (button.dataset.command === "pause") === queue.paused;
  }
  entry.next.replaceChildren(...(queue.next ?
    ["next: ", queue.next.text, " ", sheet(queue.next.section)] : []));
  drawRing(entry, queue.ring);
  const rate = (key) => (oldest && seconds > 0 ? (queue[key] - oldest[key]) / seconds : 0);
  fields.rate.textContent = Math.round(rate("frames"));
  fields.bits.textContent = (rate("bytes") * 8 / 1e6).toFixed(1);
  fields.drops.textContent = queue.drops;
  fields.drops.title = Object.entries(queue.reasons).map(([why, n]) => `${why}: ${n}`).join(", ");
  count(entry, "doorbells", queue.doorbells);
  count(entry, "interrupts", queue.interrupts);
  entry.before = queue;
}

// When the frame was where.
function way(frame, net) {
  const { doorbell, backend, done, used, interrupt } = frame.stages;
  const us = (ns) => (ns / 1000).toFixed(1).replace("-", "−");
  const peer = net.split(/[:,]/)[0];
  const stages = [
    doorbell === null ? null : ["doorbell", us(doorbell)],
    ["fetch", ""],
    backend === null ? null : [peer, done === null ? us(backend) : `${us(backend)} to ${us(done)}`],
    used === null ? null : ["used", us(used)],
    interrupt === null ? ["no interrupt", ""] : ["interrupt", us(interrupt)],
  ];
  const list = element("ol", { class: "way" });
  for (const stage of stages) {
    if (stage) list.append(element("li", {}, stage[0], " ", element("b", {}, stage[1])));
  }
  return list;
}

function chains(frame) {
  return frame.chains.map(({ head, descriptors, counted, table }) => {
    const some = (n) => (counted ? n : `${n} or more`);
    if (table) return `${head} (table of ${some(descriptors)})`;
    return descriptors > 1 ? `${head} and ${some(descriptors - 1)} others` : `${head}`;
  }).join(", ");
}

function drawFrames(list, net) {
  const last = list.length > 0 ? list[list.length - 1] : null;
  const now = last ? `${last.queue} ${last.number} ${last["time-us"]}` : "";
  if (now === listed || byId("hold").checked) return;
  listed = now;
  const rows = list.slice().reverse().map((frame) => {
    const bytes = frame["segments-of"] ? `${frame.bytes} by ${frame["segments-of"]}` : frame.bytes;
    const row = element("tr", { title: frame.start, class: frame.queue.slice(0, 2) });
    for (const cell of [frame.queue, frame.text, bytes, chains(frame)]) row.append(element("td", {}, String(cell)));
    row.append(element("td", {}, way(frame, net)));
    return row;
  });
  document.querySelector("#frames tbody").replaceChildren(...rows);
}

function drawCards(cards, name) {
  const nav = byId("cards");
  const wanted = cards.map((card) => card.name).join(" ");
  if (nav.dataset.cards !== wanted) {
    nav.dataset.cards = wanted;
    nav.replaceChildren(...cards.map((card) => {
      const button = element("button", { "data-card": card.name });
      button.addEventListener("click", () => show(card.name));
      return button;
    }));
  }
  for (const [n, card] of cards.entries()) {
    const button = nav.children[n];
    const state = card.failed ? "failed" : !card.up ? "link down" : card.paused ? "paused" : card.net;
    button.textContent = `${card.name} · ${state}`;
    button.classList.toggle("shown", card.name === name);
  }
}

function say(text, kind) {
  byId("state").className = kind;
  byId("state").textContent = text;
  document.body.classList.toggle("stale", kind === "lost");
}

function draw(picture) {
  const card = picture.card;
  heard = performance.now();
  drawCards(picture.cards, card && card.name);
  say(card ? "live" : shown ? `there is no card ${shown}` : "no cards", card ? "live" : "");
  const paused = card ? card.queues.filter((queue) => queue.paused) : [];
  byId("pause").disabled = !card || paused.length === card.queues.length;
  byId("step").disabled = byId("resume").disabled = paused.length === 0;
  if (!card) return;
  shown = card.name;
  const names = new Set(card.queues.map((queue) => queue.queue));
  for (const [name, entry] of drawn) {
    if (!names.has(name)) {
      entry.box.remove();
      drawn.delete(name);
    }
  }
  // Counters that went back are those of another process.
  const frames = (picture) => picture.card.queues.reduce((sum, queue) => sum + queue.frames, 0);
  const last = past[past.length - 1];
  if (last && (last.card.queues.length !== card.queues.length || frames(last) > frames(picture))) past = [];
  past.push(picture);
  if (past.length > HISTORY) past.shift();
  const seconds = (picture["time-us"] - past[0]["time-us"]) / 1e6;
  card.queues.forEach((queue, n) => drawQueue(queue, past[0].card.queues[n], seconds));
  drawFrames(card.frames, card.net);
}

// Looks at a card. The browser connects again by itself when the server comes back.
function show(name) {
  if (source) source.close();
  if (name !== shown || drawn.size === 0) {
    drawn.clear();
    byId("queues").replaceChildren();
    byId("words").replaceChildren();
    document.querySelector("#frames tbody").replaceChildren();
  }
  shown = name;
  history.replaceState(null, "", name ? `#${encodeURIComponent(name)}` : "#");
  past = [];
  listed = "";
  source = new EventSource(name ? `events?card=${encodeURIComponent(name)}` : "events");
  source.onmessage = (event) => draw(JSON.parse(event.data));
  source.onerror = lost;
}

// What is wrong, as far as it can be known.
async function lost() {
  say("vnetd does not answer; trying again", "lost");
  // After an answer that is no stream the browser gives up.
  if (source.readyState !== EventSource.CLOSED) return;
  setTimeout(() => show(shown), 2000);
  try {
    const reply = await fetch("style.css");
    say(reply.status === 404 ? "vnetd has another token now: see its log for the address" :
      "too many look on; trying again", "lost");
  } catch {
    // Said above.
  }
}

setInterval(() => {
  if (source.readyState === EventSource.OPEN && performance.now() - heard > SILENCE) {
    say("no news: the card hangs, or vnetd does", "lost");
  }
}, 1000);

// A step in words: what it was, with the section of the data sheet.
function tell(answer) {
  const words = byId("words");
  if (answer.error) {
    words.replaceChildren(answer.error.desc);
    return;
  }
  const done = answer.return;
  if (!done.did) {
    words.replaceChildren(done.queues.length === 0 ? "no queue is paused" :
      `paused: ${done.queues.map((queue) => queue.queue).join(", ")}`);
    return;
  }
  words.replaceChildren(element("b", {}, done.queue), `: ${done.did.text} `, sheet(done.did.section));
  words.dataset.step = done.did.step;
  words.dataset.queue = done.queue;
}

async function command(what, queue) {
  const body = { execute: `card-${what}`, arguments: { card: shown } };
  if (queue) body.arguments.queue = queue;
  try {
    const reply = await fetch("command", { method: "POST", body: JSON.stringify(body) });
    tell(reply.ok ? await reply.json() : { error: { desc: `vnetd refused: ${reply.status}` } });
  } catch {
    byId("words").textContent = "vnetd does not answer";
  }
}

for (const what of ["pause", "step", "resume"]) {
  byId(what).addEventListener("click", () => command(what, null));
}
window.addEventListener("hashchange", () => show(decodeURIComponent(location.hash.slice(1)) || null));
show(shown);
