"use strict";
// The page of a ventilator or a service. It decides nothing: what limits the job, when it will be done,
// which worker is slow, all of that comes in words from the program. The page only shows it, once a
// second, and changes nothing that has not changed.

const $ = id => document.getElementById(id);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const attr = (node, name, value) => { if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); };
const show = (node, is) => { if (node.hidden === is) node.hidden = !is; };
function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value); else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const icon = name => { const svg = s("svg", { "aria-hidden": "true" }); svg.append(s("use", { href: "#i-" + name })); return svg; };
function s(tag, props) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const key in props) node.setAttribute(key, props[key]);
  return node;
}
/** Makes `parent` have one child for each item, in their order, and keeps those that it has. */
function each(parent, items, key, make, update) {
  const old = parent.kept || new Map(), now = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const id = key(item);
    const node = old.get(id) || make(item);
    update(node, item);
    now.set(id, node);
    if (node === at) at = at.nextSibling; else parent.insertBefore(node, at);
  }
  for (const [id, node] of old) if (!now.has(id)) node.remove();
  parent.kept = now;
}

// ---- words and numbers
const grouped = new Intl.NumberFormat("en");
const num = x => grouped.format(Math.round(x));
const rate = x => x == null ? "–" : !x ? "0/s" : x < 9.95 ? (x < .05 && x > 0 ? x.toPrecision(1) : x.toFixed(1)) + "/s" : x < 9995 ? num(x) + "/s" : x < 999500 ? (x / 1e3).toPrecision(3) + " k/s" : (x / 1e6).toPrecision(3) + " M/s";
const short = x => x < 10 ? +x.toPrecision(2) + "" : x < 1e4 ? num(x) : x < 1e6 ? +(x / 1e3).toPrecision(3) + " k" : +(x / 1e6).toPrecision(3) + " M";
function dur(t) {
  if (t == null) return "–";
  if (t < .001) return Math.round(t * 1e6) + " µs";
  if (t < .9995) return +(t * 1e3).toPrecision(t < .01 ? 2 : 3) + " ms";
  if (t < 9.95) return t.toFixed(1) + " s";
  if (t < 99.5) return Math.round(t) + " s";
  const m = Math.round(t / 60);
  if (m < 100) return t < 600 && t % 60 >= 1 ? Math.floor(t / 60) + " min " + Math.floor(t % 60) + " s" : m + " min";
  const hours = Math.round(t / 3600);
  return hours < 48 ? Math.floor(t / 3600) + " h " + Math.floor(t % 3600 / 60) + " min" : Math.floor(t / 86400) + " d " + Math.round(t % 86400 / 3600) + " h";
}
const rough = t => t < 90 ? Math.max(1, Math.round(t / (t < 20 ? 1 : 5)) * (t < 20 ? 1 : 5)) + " s" : t < 5400 ? Math.round(t / 60) + " min" : t < 172800 ? (t / 3600).toFixed(t < 36000 ? 1 : 0) + " h" : (t / 86400).toFixed(1) + " days";
const clock = (t, secs) => new Date(t * 1e3).toLocaleTimeString([], secs ? { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false } : { hour: "2-digit", minute: "2-digit", hour12: false });
const day = (t, now) => Math.abs(t - now) > 64800 ? new Date(t * 1e3).toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" }) + " " : "";
const many = (n, one, more) => num(n) + " " + (n === 1 ? one : more || one + "s");
const tone = { running: ["", "go"], done: ["", "ok"], idle: ["", "wait"], waiting: ["warn", "wait"], paused: ["warn", "wait"], draining: ["warn", "wait"], stuck: ["bad", "bad"], failed: ["bad", "bad"], done_failed: ["warn", "warn"] };

// ---- what is known
let S = null, stale = false, paused = false, span = null, cursor = null, pick = null;
// What of the workers is asked for: of a thousand only the rows that are looked at are sent.
const view = { sort: "trouble", down: true, need: "", rows: 20 };
let crew = [];               // their names, in the order of the map
const points = [];           // [t, done/s, failed/s, waiting], one a second

/** Something new from the program. */
function apply(type, data) {
  if (type === "state") { S = data; if (span == null) spans(S.queue.endless ? 1800 : 0); }
  else if (type === "points") { for (const p of data) points.push(p); points.splice(0, points.length - 3600); }
  else if (type === "crew") crew = data;
  else if (type === "task") return showTask(data);
  if (!paused && type === "state") render();
}

function render() {
  const q = S.queue;
  document.title = (q.progress ? Math.floor(q.progress * 100) + " % " : "") + q.name + " · Tradewind";
  crumbs();
  put($("name"), q.name);
  const [cls, glyph] = tone[q.state] || tone.running, state = $("state");
  if (state.word !== q.state_text) { state.word = q.state_text; state.className = "state " + cls; state.replaceChildren(icon(glyph), q.state_text); }
  each($("meta"), q.about, x => x, x => h("span", null, x), () => {});
  say(q); progress(q); flow(); where(q); stages(q); hist(q); fails(q); events(q); queues(); workers(q);
  const p = S.program;
  put($("foot"), [p.role + " " + p.version + " at " + p.host, "read only", "status.json", "metrics"].join("  ·  "));
}

function crumbs() {
  const c = $("crumbs"), text = S.service ? S.queue.name : "";
  if (c.text === text) return;
  c.text = text;
  c.replaceChildren(...(S.service ? [h("a", { href: S.home || "?" }, S.service), " › " + text] : []));
}

function say(q) {
  const box = $("say");
  attr(box, "class", "panel say " + q.limit.tone);
  put($("line"), q.limit.line); put($("more"), q.limit.more);
  each($("chain"), q.chain || [], c => c[0], c => h("li", null, h("span", null, h("b", null, c[0]), "")), (node, c) => { const box = node.firstChild; put(box.lastChild, c[1]); attr(box, "class", c[2] || ""); });
  each($("notes"), q.notes, n => n.text, n => h("li", { class: n.tone }, icon(n.tone === "bad" ? "bad" : "warn"), h("span", null, n.text + " ", ...(n.to ? [h("a", { href: n.to, onclick: e => { e.preventDefault(); document.querySelector(n.to).scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" }); } }, n.link)] : []))), () => {});
}

// ---- progress, and the ruler that shows how sure the end is
function progress(q) {
  const p = q.progress, c = q.counts;
  show($("how"), !q.endless); show($("where-head"), !!q.endless);
  if (q.endless) return;
  put($("pct"), p == null ? num(c.stored) : (p >= 1 ? "100" : p > .995 ? (Math.floor(p * 1000) / 10).toFixed(1) : Math.floor(p * 100)) + " %");
  put($("pct-of"), p == null ? "have their record; of how many is not known before the input ends" : num(c.stored) + " of " + (q.total_is_estimate ? "about " : "") + num(q.total) + " tasks have their record");
  attr($("where"), "aria-valuenow", Math.round((p || 0) * 100));
  each($("facts"), q.facts, f => f[0], f => h("span", { class: f[2] || "" }, h("b"), " " + f[0]), (node, f) => put(node.firstChild, f[1]));
  const e = q.eta, at = t => day(t, S.now) + clock(t);
  put($("eta"), q.ended ? dur(q.took_seconds) : e ? rough(e.seconds) : "unknown");
  put($("eta-range"), q.ended ? "in all, until " + at(q.ended) : e ? "left, done at " + at(e.at) : q.no_eta || "");
  const fine = e && e.high_seconds - e.low_seconds < 150, sure = t => day(t, S.now) + clock(t, fine);
  put($("eta-sure"), e && !q.ended ? "Likely (8 in 10) between " + sure(S.now + e.low_seconds) + " and " + sure(S.now + e.high_seconds) + (q.eta_word ? "; " + q.eta_word : "") : "");
  ruler(q.ended ? null : e);
}
function ruler(e) {
  const svg = $("ruler"), w = svg.clientWidth || 300;
  show(svg, !!e);
  if (!e) return;
  const x = t => (Math.min(t / (e.high_seconds * 1.08), 1) * (w - 2) + 1).toFixed(1);
  if (!svg.parts) { svg.parts = [s("path", { stroke: "var(--edge)", "stroke-width": 2 }), s("rect", { y: 4, height: 12, rx: 3, fill: "var(--done)", "fill-opacity": .28 }), s("path", { stroke: "var(--done)", "stroke-width": 3 })]; svg.replaceChildren(...svg.parts); }
  const [line, range, mid] = svg.parts;
  attr(svg, "viewBox", "0 0 " + w + " 20");
  attr(line, "d", "M1 10H" + (w - 1) + "M1 4v12"); attr(range, "x", x(e.low_seconds)); attr(range, "width", Math.max(3, x(e.high_seconds) - x(e.low_seconds)).toFixed(1)); attr(mid, "d", "M" + x(e.seconds) + " 1v18");
}
function label(x, y, text, anchor, cls) { const t = s("text", { x, y, "text-anchor": anchor || "middle", class: cls || "" }); t.textContent = text; return t; }

// ---- throughput
function nice(max) { const e = 10 ** Math.floor(Math.log10(max || 1)); return [1, 2, 2.5, 5, 10].find(m => m * e >= max) * e; }
function window_() {
  const end = points.length ? points[points.length - 1][0] : 0, from = span ? end - span : points.length ? points[0][0] : 0;
  const rows = points.filter(p => p[0] > from), step = Math.max(1, Math.ceil(rows.length / 300)), out = [];
  for (let i = rows.length % step; i < rows.length; i += step) {
    const part = rows.slice(i, i + step), mean = k => part.reduce((a, p) => a + p[k], 0) / part.length;
    if (part.length) out.push([part[part.length - 1][0], mean(1), mean(2), part[part.length - 1][3]]);
  }
  return { rows: out, from, end };
}
function flow() {
  const svg = $("flow"), w = svg.clientWidth || 700, H = 232, L = 44, R = w - 6, top = 8, base = 152, b0 = 166, b1 = 206;
  const { rows, from, end } = window_();
  if (!rows.length) return;
  attr(svg, "viewBox", "0 0 " + w + " " + H); attr(svg, "height", H);
  const most = nice(Math.max(...rows.map(r => r[1]), ...rows.map(r => r[2])) || 1), back = nice(Math.max(...rows.map(r => r[3]), 1));
  const x = t => L + (t - from) / (end - from || 1) * (R - L), y = v => base - v / most * (base - top), yb = v => b1 - v / back * (b1 - b0);
  const line = rows.map((r, i) => (i ? "L" : "M") + x(r[0]).toFixed(1) + " " + y(r[1]).toFixed(1)).join("");
  const x0 = x(rows[0][0]).toFixed(1), x1 = x(rows[rows.length - 1][0]).toFixed(1);
  const fails = rows.filter(r => r[2] > 0).map(r => "M" + x(r[0]).toFixed(1) + " " + base + "V" + Math.min(base - 3, y(r[2])).toFixed(1)).join("");
  const area = rows.map(r => "L" + x(r[0]).toFixed(1) + " " + yb(r[3]).toFixed(1)).join("");
  if (!svg.parts) {
    svg.parts = ["axis", "area", "back", "fails", "line", "mark", "cursor"].map(c => s("path", { class: c }));
    svg.parts.push(s("g"));
    svg.replaceChildren(...svg.parts);
  }
  const [axis, fill, bk, fl, ln, mk, cur, texts] = svg.parts, ticks = [0, .5, 1].map(f => f * most);
  attr(axis, "d", ticks.map(v => "M" + L + " " + y(v) + "H" + R).join("") + "M" + L + " " + b1 + "H" + R);
  attr(ln, "d", line); attr(fill, "d", line + "L" + x1 + " " + base + "L" + x0 + " " + base + "z"); attr(fl, "d", fails);
  attr(bk, "d", "M" + x0 + " " + b1 + area + "L" + x1 + " " + b1 + "z");
  attr(mk, "d", S.queue.events.filter(e => e.mark && e.t > from).map(e => "M" + x(e.t).toFixed(1) + " " + (base + 2) + "l4 7h-8z").join(""));
  const step = [10, 30, 60, 120, 300, 600, 1800, 3600].find(d => (end - from) / d <= w / 100) || 7200;
  const names = ticks.slice(1).map(v => [L - 6, y(v) + 4, short(v), "end"]).concat([[L - 6, b0 + 10, short(back), "end"]]);
  for (let t = Math.ceil(from / step) * step; t <= end; t += step) if (x(t) > L + 14 && x(t) < R - 14) names.push([x(t).toFixed(1), H - 8, clock(t, step < 60), "middle"]);
  each(texts, names.map((n, i) => [i, ...n]), n => n[0], () => s("text"), (node, n) => { attr(node, "x", n[1]); attr(node, "y", n[2]); attr(node, "text-anchor", n[4]); put(node, n[3]); });
  const at = cursor == null ? rows.length - 1 : Math.max(0, Math.min(rows.length - 1, Math.round((cursor - L) / (R - L) * (rows.length - 1))));
  attr(cur, "d", cursor == null ? "" : "M" + x(rows[at][0]).toFixed(1) + " " + top + "V" + b1);
  put($("l-done"), rate(cursor == null ? S.queue.rate : rows[at][1])); put($("l-fail"), rate(cursor == null ? S.queue.fail_rate : rows[at][2])); put($("l-back"), short(rows[at][3]));
  put($("l-at"), cursor == null ? "now" : "at " + clock(rows[at][0], true));
  const mean = rows.reduce((a, r) => a + r[1], 0) / rows.length;
  put($("flow-text"), "Done per second: " + rate(S.queue.rate) + " now, " + rate(mean) + " on average since " + clock(from) + ", at most " + rate(Math.max(...rows.map(r => r[1]))));
  svg.move = d => { cursor = Math.max(L, Math.min(R, (cursor == null ? R : cursor) + d * (R - L) / rows.length)); flow(); };
}

// ---- run times: a bar for each doubling
function hist(q) {
  const svg = $("hist"), r = q.run, w = svg.clientWidth || 340, H = 202, L = 4, R = w - 4, base = 172, n = r.buckets.length;
  const key = w + r.text + n;
  if (svg.key === key) return;
  svg.key = key;
  attr(svg, "viewBox", "0 0 " + w + " " + H); attr(svg, "height", H);
  put($("run-text"), r.text);
  const most = Math.max(...r.buckets.map(b => b[1]));
  if (!(most > 0)) return svg.replaceChildren(label(w / 2, 100, "none has ended yet"));
  const bw = (R - L) / n, x = t => L + Math.max(0, Math.min(n, Math.log2(t / r.buckets[0][0]) + 1)) * bw;
  const words = [], out = [s("path", { class: "axis", d: "M" + L + " " + base + "H" + R })];
  r.buckets.forEach((b, i) => {
    if (!b[1]) return;
    const tall = Math.max(2, b[1] / most * 112), bar = s("rect", { class: "bar", x: L + i * bw + 1, y: base - tall, width: bw - 2, height: tall, rx: 1.5 });
    bar.append(s("title")); bar.firstChild.textContent = "up to " + dur(b[0]) + ": " + num(b[1]); out.push(bar);
  });
  const units = [[1e-6, " µs"], [1e-3, " ms"], [1, " s"], [1e3, " ks"]];
  for (let d = 1e-6; d < 1e6; d *= 10) if (x(d) > L + 8 && x(d) < R - 16) { const [u, name] = units.filter(u => d >= u[0] * .99).pop(); out.push(label(x(d), base + 17, Math.round(d / u) + name), s("path", { class: "axis", d: "M" + x(d) + " " + base + "v4" })); }
  for (const [name, t, y, cls] of [["half are done in " + dur(r.p50_seconds), r.p50_seconds, 14, "q"], ["19 of 20 in " + dur(r.p95_seconds), r.p95_seconds, 31, "q"], ["timeout", r.limit_seconds, 48, "limit"]]) {
    if (!t || x(t) >= R) continue;
    const right = name !== "timeout" && y > 14 ? x(t) > w - 118 : x(t) > 108;
    out.push(s("path", { class: cls, d: "M" + x(t) + " " + (y - 10) + "V" + base }));
    words.push(label(x(t) + (right ? -5 : 5), y, name, right ? "end" : "start", "qt"));
  }
  svg.replaceChildren(...out, ...words);
}

// ---- where the tasks are
function where(q) {
  const parts = q.where.filter(p => p.n || !p.rare), all = parts.reduce((a, p) => a + p.n, 0) || 1;
  put($("where-sum"), q.where_text);
  each($("where"), parts, p => p.id, p => h("i", { class: "f-" + p.id }), (node, p) => { const w = p.n ? "max(" + (p.n / all * 100).toFixed(1) + "% - 2px, 7px)" : "0"; show(node, p.n > 0); if (node.style.width !== w) { node.style.width = w; node.style.flexShrink = p.n / all > .2 ? 1 : 0; } });
  each($("keys"), parts, p => p.id, p => h("li", null, h("i", { class: "f-" + p.id }), h("b"), h("span", null, p.name), h("small")), (node, p) => { put(node.children[1], num(p.n)); put(node.children[3], p.about); });
}

// ---- stages
function stages(q) {
  show($("p-stages"), !!q.stages);
  if (!q.stages) return;
  put($("stages-sum"), q.stages_text);
  each($("stages"), q.stages, x => x.name, () => h("li", null, h("div", { class: "stage" }, h("b"), h("div", { class: "track" }, h("i", { class: "f-run" })), h("span"), h("span"), h("span"), h("span"), h("em"))), (node, x) => {
    const box = node.firstChild, k = box.children;
    attr(box, "class", "stage" + (x.limits ? " limits" : ""));
    put(k[0], x.name); k[1].firstChild.style.width = x.busy / (x.slots || 1) * 100 + "%";
    put(k[2], x.busy + "/" + x.slots + " busy"); put(k[3], rate(x.rate) + ", " + dur(x.median_seconds)); put(k[4], short(x.waiting) + (x.waiting === 1 ? " waits" : " wait")); put(k[5], x.failed ? short(x.failed) + " failed" : ""); put(k[6], x.word || "");
  });
}

// ---- failures
function fails(q) {
  put($("fails-sum"), q.fails_text);
  const list = $("fails");
  if (!q.fails.length) { list.kept = null; if (!list.firstElementChild || !list.firstElementChild.matches(".none")) list.replaceChildren(h("li", { class: "none" }, "None so far.")); return; }
  if (list.firstElementChild && list.firstElementChild.matches(".none")) list.replaceChildren();
  each(list, q.fails, f => f.id, f => h("li", null, h("details", q.fails.length === 1 ? { open: "" } : null, h("summary", null, h("b"), h("span", { class: "msg" }), h("span", { class: "when" }), h("span", { class: "about" })), h("pre"), h("p", { class: "seqs" }))), (node, f) => {
    const d = node.firstChild, k = d.firstChild.children;
    put(k[0], (f.count < 1e6 ? num(f.count) : short(f.count)) + " ×"); put(k[1], f.message); put(k[2], f.when); put(k[3], f.about);
    // What one reads is not pulled away: the example stays as long as it is open.
    if (!d.open || !d.filled) { put(d.children[1], f.example); const ids = f.seqs.join(); if (d.filled !== ids) { d.filled = ids; d.children[2].replaceChildren("for example task ", ...f.seqs.map(seq => h("button", { type: "button", onclick: () => ask(seq) }, "#" + num(seq)))); } }
  });
}

function events(q) {
  each($("events"), q.events.slice(-8).reverse(), e => e.t + e.text, e => h("li", null, h("time", null, clock(e.t, true)), h("span", null, (e.mark ? "▲ " : "") + e.text)), () => {});
}

// ---- queues of a service
function queues() {
  show($("p-queues"), !!S.queues);
  if (!S.queues) return;
  put($("queues-sum"), S.queues_text);
  each($("queues"), S.queues, x => x.name, x => h("tr", null, h("td", null, h("a", { href: (S.home ? "#" : "?queue=") + x.name }, h("b", null, x.name))), h("td", { class: "wide", "data-l": "now" }, h("span", { class: "chip" }), " ", h("span", { class: "soft" })), ...["waiting", "oldest waits", "done", "failed, last hour", "slots busy", "empty in"].map(l => h("td", { class: /busy|empty/.test(l) ? "n minor" : "n", "data-l": l })), h("td", { class: "minor" }, s("svg", { class: "spark", viewBox: "0 0 110 24", "aria-hidden": "true" }))), (tr, x) => {
    const k = tr.children, chip = k[1].firstChild;
    attr(chip, "class", "chip " + (x.state === "running" ? "good" : (tone[x.state] || [])[0] || "plain")); put(chip, x.state_text); put(k[1].lastChild, x.why);
    put(k[2], num(x.waiting)); put(k[3], x.oldest_seconds == null ? "–" : dur(x.oldest_seconds)); put(k[4], rate(x.rate)); put(k[5], num(x.failed)); put(k[6], x.busy + " of " + x.slots); put(k[7], x.empty_in_seconds == null ? "–" : rough(x.empty_in_seconds));
    const svg = k[8].firstChild, top = Math.max(...x.spark, .1), d = x.spark.map((v, i) => (i ? "L" : "M") + (i / (x.spark.length - 1) * 108 + 1).toFixed(1) + " " + (22 - v / top * 20).toFixed(1)).join("");
    if (!svg.firstChild) svg.append(s("path", { fill: "none", stroke: "var(--done)", "stroke-width": 1.6 }));
    attr(svg.firstChild, "d", d);
  });
}

// ---- workers
const COLUMNS = [["name", "Worker"], ["trouble", "Remark"], ["busy", "Slots busy"], ["rate", "Done/s", 1], ["median", "Median run time", 1], ["done", "Done", 1], ["failed", "Failed", 1], ["heard", "Heard", 1], ["host", "Host"], ["version", "Version"]];
function look(change) { Object.assign(view, change); workers.order = null; (window.fakeView || reopen)(view); }
function workers(q) {
  const head = $("w-head"), more = $("w-more");
  if (!head.firstChild) for (const [id, text, n] of COLUMNS) head.append(h("th", { class: n ? "n" : "" }, h("button", { onclick: () => look({ sort: id, down: view.sort === id ? !view.down : true }) }, text)));
  COLUMNS.forEach(([id], i) => { const th = head.children[i]; if (view.sort === id) attr(th, "aria-sort", view.down ? "descending" : "ascending"); else th.removeAttribute("aria-sort"); });
  // Rows change places at most every five seconds, and not under the hand of whoever points at one.
  if (!workers.order || S.now - workers.at >= 5 && !$("workers").matches(":hover, :focus-within")) { workers.order = new Map(q.workers.map((w, i) => [w.name, i])); workers.at = S.now; }
  const place = w => workers.order.has(w.name) ? workers.order.get(w.name) : 1e9;
  put($("workers-sum"), q.workers_text);
  map(q);
  each($("workers"), q.workers.slice().sort((a, b) => place(a) - place(b)), w => w.name, w => h("tr", null, h("td", null, h("b", null, w.name)), h("td", { class: "wide" }, h("span")), h("td", { "data-l": "slots busy" }, h("span", { class: "slots", "aria-hidden": "true" }), " ", h("span")), ...["done/s", "median", "done", "failed", "heard"].map(l => h("td", { class: l === "done" || l === "heard" ? "n minor" : "n", "data-l": l })), h("td", { class: "mono minor" }), h("td", { class: "minor" })), (tr, w) => {
    const k = tr.children, bar = k[2].firstChild, chip = k[1].firstChild;
    put(chip, w.remark); attr(chip, "class", w.remark ? "chip " + w.tone : "");
    attr(bar, "class", w.slots > 16 ? "slots many" : "slots"); bar.style.setProperty("--n", Math.min(16, w.slots)); bar.style.setProperty("--p", (w.busy / w.slots * 100).toFixed(1) + "%");
    put(k[2].lastChild, w.busy + "/" + w.slots); put(k[3], rate(w.rate).replace("/s", "")); put(k[4], dur(w.median_seconds)); put(k[5], num(w.done)); put(k[6], num(w.failed)); put(k[7], w.heard_seconds < 2 ? "now" : dur(w.heard_seconds) + " ago"); put(k[8], w.host); put(k[9], w.version);
  });
  const left = q.workers_found - q.workers.length;
  const text = !q.workers_found ? (view.need ? "No worker's name or host has “" + view.need + "” in it." : q.no_workers) : left > 0 ? num(left) + " more, " + (view.sort === "trouble" ? "with less to remark on" : "further down") : "";
  if (more.text !== text) { more.text = text; more.replaceChildren(text + " ", ...(left > 0 ? [h("button", { onclick: () => look({ rows: view.rows + 50 }) }, "Show 50 more")] : [])); }
}
/** A cell for each worker, filled as far as it is busy; what is wrong has a shape of its own. */
function map(q) {
  const c = $("map"), text = q.map || "", n = text.length;
  show(c, n > 0); show($("map-key"), n > 0);
  if (!n) return;
  const ratio = devicePixelRatio || 1, w = c.clientWidth, cell = n > 400 ? 12 : 16, per = Math.floor(w / cell), tall = Math.ceil(n / per) * cell;
  if (c.width !== Math.round(w * ratio) || c.height !== Math.round(tall * ratio)) { c.width = Math.round(w * ratio); c.height = Math.round(tall * ratio); c.style.height = tall + "px"; }
  const g = c.getContext("2d"), css = getComputedStyle(document.documentElement), [run, wait, warn, bad, paper, faint, ink] = ["run", "wait", "warn-fill", "bad", "panel", "faint", "ink"].map(name => css.getPropertyValue("--" + name).trim());
  g.setTransform(ratio, 0, 0, ratio, 0, 0); g.clearRect(0, 0, w, tall); g.lineWidth = 1.6;
  for (let i = 0; i < n; i++) {
    // A letter a worker: what is wrong (0 to 2) times nine, and the eighths of its slots that are busy.
    const code = text.charCodeAt(i) - 48, tone = Math.floor(code / 9), x = i % per * cell + 1, y = Math.floor(i / per) * cell + 1, a = cell - 2, f = code % 9 / 8 * a;
    g.fillStyle = faint; g.fillRect(x, y, a, a);
    g.fillStyle = [run, warn, bad][tone]; g.fillRect(x, y + a - f, a, f);
    if (tone === 2 || !f) { g.strokeStyle = tone === 2 ? bad : wait; g.strokeRect(x + .8, y + .8, a - 1.6, a - 1.6); }
    if (tone === 2) { g.strokeStyle = f > a / 2 ? paper : bad; g.beginPath(); g.moveTo(x + 3, y + 3); g.lineTo(x + a - 3, y + a - 3); g.moveTo(x + a - 3, y + 3); g.lineTo(x + 3, y + a - 3); g.stroke(); }
    if (tone === 1) { g.fillStyle = paper; g.beginPath(); g.moveTo(x, y); g.lineTo(x + a * .6, y); g.lineTo(x, y + a * .6); g.fill(); }
    if (crew[i] === pick) { g.strokeStyle = ink; g.strokeRect(x - .2, y - .2, a + .4, a + .4); }
  }
  c.at = e => { const box = c.getBoundingClientRect(); return crew[Math.floor((e.clientY - box.top) / cell) * per + Math.floor((e.clientX - box.left) / cell)]; };
  attr(c, "aria-label", q.workers_text);
  put($("map-key"), "A cell a worker, filled as far as its slots are busy; a cut corner: slow or draining; a cross: silent, or all of its tasks fail. Click one to filter.");
}

// ---- one task
function ask(seq) { (window.fakeTask || (seq => fetch("tasks/" + encodeURIComponent(seq)).then(r => r.json()).then(t => apply("task", t))))(seq); }
function showTask(t) {
  put($("t-head"), t.name); put($("t-line"), t.line); put($("t-why"), t.why);
  $("t-way").replaceChildren(...t.way.map(x => h("li", { class: x.tone || "" }, h("span", null, x.text), ...(x.about ? [h("small", null, x.about)] : []), ...(x.stderr ? [h("pre", null, x.stderr)] : []))));
  if (!$("task").open) $("task").showModal();
}

// ---- hands
function spans(secs) { span = secs; for (const b of $("spans").children) attr(b, "aria-pressed", b.secs === secs); }
for (const [secs, text] of [[300, "5 min"], [1800, "30 min"], [0, "All"]]) { const b = h("button", { "aria-pressed": "false", onclick: () => { spans(secs); flow(); } }, text); b.secs = secs; $("spans").append(b); }
$("find").addEventListener("submit", e => { e.preventDefault(); const text = $("seq").value.trim().replace(/^#|,/g, ""); if (text) ask(text); });
$("filter").addEventListener("input", () => look({ need: $("filter").value.trim(), rows: 20 }));
$("pause").addEventListener("click", () => { paused = !paused; attr($("pause"), "aria-pressed", paused); put($("pause"), paused ? "Go on" : "Pause"); live(paused ? "paused" : "", paused ? "at " + clock(S.now, true) : "live"); if (!paused) render(); });
$("flow").addEventListener("pointermove", e => { cursor = (e.clientX - $("flow").getBoundingClientRect().left); flow(); });
$("flow").addEventListener("pointerleave", () => { cursor = null; flow(); });
$("flow").addEventListener("keydown", e => { if (e.key === "ArrowLeft" || e.key === "ArrowRight") { e.preventDefault(); $("flow").move(e.key === "ArrowLeft" ? -1 : 1); } else if (e.key === "Escape") { cursor = null; flow(); } });
$("flow").addEventListener("blur", () => { cursor = null; if (S) flow(); });
$("map").addEventListener("click", e => { pick = $("map").at(e); if (pick) { $("filter").value = pick; look({ need: pick, rows: 20 }); } });
$("map").addEventListener("pointermove", e => attr($("map"), "title", $("map").at(e) || ""));
new ResizeObserver(() => { if (S) { flow(); hist(S.queue); progress(S.queue); map(S.queue); } }).observe($("grid"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (S) map(S.queue); });
addEventListener("keydown", e => { if (e.key === "/" && !/INPUT|SELECT/.test(document.activeElement.tagName)) { e.preventDefault(); $("seq").focus(); } });

// ---- the stream
function live(cls, text) { attr($("live"), "class", "live " + cls); put($("livetext"), text); }
function lost(since) {
  stale = true; document.body.classList.add("stale"); live("off", "no answer");
  show($("banner"), true); put($("banner"), "The ventilator does not answer. What stands here is from " + clock(since, true) + "; trying again.");
}
function found() { if (stale) { stale = false; document.body.classList.remove("stale"); show($("banner"), false); } live("", "live"); }
let source, timer, reopen = () => {};
function connect() {
  const open = () => {
    const ask = new URLSearchParams(location.search);
    for (const key in view) ask.set(key, view[key]);
    if (points.length) ask.set("after", points[points.length - 1][0]);
    source = new EventSource("events?" + ask);
    for (const type of ["state", "points", "crew"]) source.addEventListener(type, e => { found(); clearTimeout(timer); timer = setTimeout(() => lost(S.now), 5000); apply(type, JSON.parse(e.data)); });
    // After the end nothing more comes, and what is shown stays: a report.
    source.addEventListener("end", () => { clearTimeout(timer); source.close(); live("paused", "ended"); });
    source.onerror = () => { if (S) lost(S.now); };
  };
  reopen = () => { clearTimeout(timer); source.close(); open(); };
  // A tab that nobody looks at keeps no connection: a browser has six for a host.
  document.addEventListener("visibilitychange", () => { clearTimeout(timer); source.close(); if (!document.hidden && !(S && S.queue.ended)) open(); });
  open();
}
if (window.fake) window.fake(apply, live, lost); else connect();
