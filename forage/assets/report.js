"use strict";
// Everything is written with textContent: passages and answers are untrusted text.
const DATA = JSON.parse(document.getElementById("data").textContent);
const STOPS = {answered: "answered", no_answer: "no answer", context_full: "context full", retriever_error: "search failed"};

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// ---- charts: a cross and the values at the nearest step

const tip = document.getElementById("tip");
const WIDTH = 384;

function showTip(event, chart, svg) {
  const box = svg.getBoundingClientRect();
  const x = (event.clientX - box.left) * WIDTH / box.width;
  let at = 0;
  chart.px.forEach((px, i) => { if (Math.abs(px - x) < Math.abs(chart.px[at] - x)) at = i; });
  const cross = svg.querySelector(".cross");
  cross.setAttribute("transform", `translate(${chart.px[at]} 0)`);
  cross.setAttribute("visibility", "visible");
  const rows = chart.rows.filter((row) => row.v[at]).map((row) => make("div", {}, make("span", {}, row.n), make("b", {}, row.v[at])));
  tip.replaceChildren(make("b", {}, `${chart.unit ?? "step"} ${chart.x[at].toLocaleString("en")}`), ...rows);
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
}

for (const card of document.querySelectorAll("[data-chart]")) {
  const svg = card.querySelector("svg"), chart = DATA.charts[card.dataset.chart];
  if (!chart || !chart.px) continue;
  const hide = () => { tip.hidden = true; svg.querySelector(".cross").setAttribute("visibility", "hidden"); };
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, (event) => showTip(event, chart, svg));
  svg.addEventListener("pointerleave", hide);
  window.addEventListener("scroll", hide, {passive: true});
}

// ---- episodes

function marked(text, spans) {
  const characters = Array.from(text), parts = [];
  let at = 0;
  for (const [start, end] of spans || []) {
    parts.push(characters.slice(at, start).join(""), make("mark", {title: "a gold answer"}, characters.slice(start, end).join("")));
    at = end;
  }
  parts.push(characters.slice(at).join(""));
  return parts;
}

const TAG = /<\/?(think|search|answer|information)>/g;

// The role of each UTF-16 unit of a turn, and where it begins a block of its own.
function roles(text) {
  const role = new Array(text.length).fill("text"), tag = new Array(text.length).fill(false);
  let open = "text", last = 0;
  for (const found of text.matchAll(TAG)) {
    role.fill(open, last, found.index);
    const closing = found[0][1] === "/", end = found.index + found[0].length;
    role.fill(closing && open === "text" ? "text" : found[1], found.index, end);
    tag.fill(true, found.index, end);
    open = closing ? "text" : found[1];
    last = end;
  }
  role.fill(open, last);
  return {role, tag};
}

// Surprise is -100 x logprob.
function shadeOf(episode, view, surprise) {
  if (view.shade === "logprob") {
    const strength = Math.min(1, surprise / 300);
    return strength > 0.02 ? `rgb(var(--surprise) / ${(0.08 + 0.62 * strength).toFixed(2)})` : "";
  }
  if (view.shade === "advantage" && episode.advantage) {
    const strength = Math.min(1, Math.abs(episode.advantage) / 2);
    return `rgb(var(--${episode.advantage > 0 ? "plus" : "minus"}) / ${(0.08 + 0.4 * strength).toFixed(2)})`;
  }
  return "";
}

function tokenTitle(episode, surprise) {
  const value = -surprise / 100, chance = Math.exp(value) * 100;
  const advantage = typeof episode.advantage === "number" ? `, advantage ${episode.advantage.toFixed(2)}` : "";
  return `logprob ${value.toFixed(2)}, probability ${chance < 0.1 ? "<0.1" : chance.toFixed(1)}%${advantage}`;
}

function actedTurn(episode, segment, view) {
  const [, , numbers, surprises] = segment;
  const texts = numbers.map((number) => DATA.pieces[number]);
  const {role, tag} = roles(texts.join(""));
  const blocks = [];
  let at = 0;
  texts.forEach((text, i) => {
    for (let start = 0; start < text.length;) {
      let end = start + 1;
      while (end < text.length && role[at + end] === role[at + start] && tag[at + end] === tag[at + start]) end++;
      const piece = text.slice(start, end), kind = role[at + start];
      let block = blocks[blocks.length - 1];
      if (!block || (block.kind !== kind && piece.trim())) blocks.push(block = {kind, spans: []});
      const shade = shadeOf(episode, view, surprises[i]);
      block.spans.push(make("span", {
        class: tag[at + start] ? "tag" : null, style: shade ? `background:${shade}` : null, title: tokenTitle(episode, surprises[i]),
      }, piece));
      start = end;
    }
    at += text.length;
  });
  return make("div", {class: "acted"}, blocks.map((block) => make("div", {class: `block ${block.kind}`},
    make("span", {}, {text: "", information: ""}[block.kind] ?? block.kind), make("div", {}, block.spans))));
}

function actedAction(turn) {
  const said = {search: () => turn.queries.join(" · "), answer: () => turn.text, invalid: () => `no action (${turn.reason})`};
  return make("div", {class: "acted"}, make("div", {class: `block ${turn.action}`}, make("span", {}, turn.action), make("div", {}, said[turn.action]())));
}

function passages(turn, last) {
  if (turn.action === "invalid" && !last) return [make("p", {class: "none"}, `Not an action (${turn.reason.replaceAll("_", " ")}): told to try again.`)];
  return turn.found.flatMap((results) => results.length ? results.map(([number, inTitle, inText]) => {
    const [title, text] = DATA.passages[number];
    return make("div", {class: "passage"}, title ? make("b", {}, marked(title, inTitle)) : null, make("div", {}, marked(text, inText)));
  }) : [make("p", {class: "none"}, "Nothing was found.")]);
}

function rawTokens(segment) {
  return make("div", {class: "raw"}, segment[2].map((number) => make("span", {}, DATA.pieces[number])));
}

function episodeTurns(episode, view) {
  const parts = [], observed = new Map(), acted = new Map();
  for (const segment of episode.segments) (segment[1] ? acted : observed).set(segment[0], segment);
  if (observed.has(0)) parts.push(make("details", {open: view.seen === "tokens"}, make("summary", {}, "The prompt"), rawTokens(observed.get(0))));
  episode.turns.forEach((turn, i) => {
    parts.push(acted.has(i) ? actedTurn(episode, acted.get(i), view) : actedAction(turn));
    if (view.seen === "tokens" && observed.has(i + 1)) parts.push(rawTokens(observed.get(i + 1)));
    else {
      const seen = passages(turn, i + 1 === episode.turns.length);
      if (seen.length) parts.push(make("div", {class: "seen"}, seen));
    }
  });
  const kept = episode.segments.reduce((sum, segment) => sum + segment[2].length, 0);
  if (kept && kept < episode.size[0]) parts.push(make("p", {class: "none"}, `${episode.size[0] - kept} further tokens are not shown.`));
  return make("div", {class: "turns"}, parts);
}

function episodeCard(name, episode, view) {
  const right = (episode.em ?? episode.reward) > 0;
  const searches = episode.turns.filter((turn) => turn.found.length).length;
  const counts = `${searches} search${searches === 1 ? "" : "es"}, ${episode.size[1]} tokens written of ${episode.size[0]}`;
  const scored = typeof episode.reward === "number" ? `, reward ${episode.reward.toFixed(2)}, advantage ${(episode.advantage ?? 0).toFixed(2)}` : "";
  const hit = episode.hit === undefined ? "" : episode.hit ? ", answer stood in a passage" : ", answer in no passage";
  return make("article", {class: `episode ${right ? "right" : "wrong"}`},
    make("header", {},
      make("h4", {}, make("span", {}, name), make("em", {}, right ? "right" : "wrong")),
      make("p", {}, episode.answer === null ? "No answer" : ["Answer: ", make("b", {}, marked(episode.answer, episode.gold))],
        ` · ${STOPS[episode.stop] || episode.stop}`),
      make("p", {}, counts + hit + scored)),
    episodeTurns(episode, view));
}

function asked(question) {
  const hops = question.hops ? ` · ${question.hops} hop${question.hops === 1 ? "" : "s"}` : "";
  return make("div", {class: "asked"}, make("q", {}, question.text),
    make("div", {}, "Gold: ", make("b", {}, question.answers.slice(0, 6).join(" / ")), `${hops} · ${question.id}`, question.kind ? ` · ${question.kind}` : ""));
}

function choice(label, options, value, onchange) {
  const select = make("select", {onchange: () => onchange(select.value)},
    options.map(([key, text]) => make("option", {value: key, selected: key === value}, text)));
  return make("label", {}, label, select);
}

function pager(view, count, draw) {
  const go = (by) => { view.at = Math.min(count - 1, Math.max(0, view.at + by)); draw(); };
  view.go = go;
  return make("div", {class: "pager"},
    make("button", {onclick: () => go(-1), disabled: view.at <= 0, "aria-label": "previous"}, "←"),
    make("span", {}, count ? `${view.at + 1} of ${count}` : "none"),
    make("button", {onclick: () => go(1), disabled: view.at >= count - 1, "aria-label": "next"}, "→"));
}

function shadeKey(view) {
  if (view.shade === "logprob") return make("span", {class: "key"}, "sure", make("i", {style: "background:linear-gradient(90deg,rgb(var(--surprise)/.05),rgb(var(--surprise)/.7))"}), "unlikely");
  if (view.shade === "advantage") return make("span", {class: "key"}, "less of this", make("i", {style: "background:linear-gradient(90deg,rgb(var(--minus)/.48),transparent,rgb(var(--plus)/.48))"}), "more of it");
  return null;
}

function sharedTools(view, shades, draw) {
  if (!DATA.pieces.length) return [];
  return [
    choice("Shade", shades, view.shade, (value) => { view.shade = value; draw(); }),
    choice("Shown to it", [["passages", "as passages"], ["tokens", "as tokens"]], view.seen, (value) => { view.seen = value; draw(); }),
    shadeKey(view),
  ];
}

function pairsViewer(root) {
  const {items, kinds, totals, steps} = DATA.pairs;
  const view = {at: 0, kind: "", hops: "", stop: "", shade: "none", seen: "passages"};
  const all = (read) => [...new Set(items.map(read))].sort();
  const hops = all((item) => item.hops ?? ""), stops = all((item) => item.sides[item.sides.length - 1].stop);
  const set = (name) => (value) => { view[name] = value; view.at = 0; draw(); };
  function draw() {
    const fits = items.filter((item) => (!view.kind || item.kind === view.kind) && (!view.hops || String(item.hops ?? "") === view.hops)
      && (!view.stop || item.sides[item.sides.length - 1].stop === view.stop));
    view.at = Math.max(0, Math.min(view.at, fits.length - 1));
    const chips = make("div", {class: "chips", role: "group", "aria-label": "outcome"}, ["", ...kinds].map((kind) =>
      make("button", {"aria-pressed": String(view.kind === kind), onclick: () => set("kind")(kind)}, kind || "all",
        make("small", {}, (kind ? totals[kind] || 0 : Object.values(totals).reduce((a, b) => a + b, 0)).toLocaleString("en")))));
    const tools = make("div", {class: "tools"}, chips, pager(view, fits.length, draw));
    const more = make("div", {class: "tools"},
      hops.length > 1 ? choice("Hops", [["", "any"], ...hops.map((h) => [String(h), String(h)])], view.hops, set("hops")) : null,
      stops.length > 1 ? choice("Ended", [["", "any way"], ...stops.map((s) => [s, STOPS[s] || s])], view.stop, set("stop")) : null,
      ...sharedTools(view, [["none", "none"], ["logprob", "logprob"]], draw));
    const item = fits[view.at];
    const names = item && item.sides.length > 1 ? ["Before", "After"] : ["Answered"];
    root.replaceChildren(tools, more.childElementCount ? more : "", item ? asked(item) : make("p", {class: "none"}, "No question here fits."),
      item ? make("div", {class: "sides"}, item.sides.map((side, i) => episodeCard(`${names[i]}, step ${steps[i].toLocaleString("en")}`, side, view))) : "");
  }
  draw();
  return view;
}

function trainViewer(root) {
  const groups = DATA.train.flatMap(({step, groups}) => groups.map((group) => ({step, ...group})));
  const view = {at: 0, sample: 0, shade: "advantage", seen: "passages"};
  let shown = -1;
  function draw() {
    if (shown !== view.at) view.sample = 0;
    shown = view.at;
    const group = groups[view.at];
    const tools = make("div", {class: "tools"},
      choice("Step", DATA.train.map(({step}) => [String(step), step.toLocaleString("en")]), String(group.step),
        (value) => { view.at = groups.findIndex((g) => String(g.step) === value); draw(); }),
      ...sharedTools(view, [["none", "none"], ["logprob", "logprob"], ["advantage", "advantage"]], draw), pager(view, groups.length, draw));
    const samples = make("div", {class: "chips samples", role: "group", "aria-label": "sample"}, group.samples.map((sample, i) =>
      make("button", {class: sample.reward > 0 ? "right" : "wrong", "aria-pressed": String(i === view.sample), onclick: () => { view.sample = i; draw(); }},
        sample.answer === null ? "no answer" : Array.from(sample.answer).slice(0, 28).join("") || "(empty)",
        make("small", {}, `reward ${sample.reward.toFixed(2)}, adv. ${(sample.advantage ?? 0).toFixed(2)}`))));
    root.replaceChildren(tools, asked(group), samples,
      episodeCard(`Step ${group.step.toLocaleString("en")}, sample ${view.sample + 1} of ${group.samples.length}`, group.samples[view.sample], view));
  }
  draw();
  return view;
}

const viewers = [["pairs", pairsViewer], ["train", trainViewer]]
  .map(([id, start]) => [document.getElementById(id), start]).filter(([root]) => root).map(([root, start]) => [root, start(root)]);

document.addEventListener("keydown", (event) => {
  const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!by || event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const middle = window.innerHeight / 2;
  for (const [root, view] of viewers) {
    const box = root.getBoundingClientRect();
    if (box.top < middle && box.bottom > middle * 0.4) { view.go(by); event.preventDefault(); return; }
  }
});
