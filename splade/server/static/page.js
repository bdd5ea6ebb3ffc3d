"use strict";

const $ = (id) => document.getElementById(id);
const STEP = 1.5; // what + and − multiply a weight by
const SHOWN_TERMS = 12;
let factors = {};
let asked = ""; // the query whose terms are shown
let latest = 0; // number of the newest request; answers of older ones are dropped
const token = new URLSearchParams(location.hash.slice(1)).get("token");

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text; // never HTML: texts and queries are anybody's
  return element;
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = "Bearer " + token;
  const response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || response.statusText);
  return answer;
}

async function search() {
  const query = $("query").value;
  if (!query.trim()) return;
  if (query !== asked) {
    factors = {};
    history.replaceState(null, "", "?" + new URLSearchParams({ q: query }) + location.hash); // an address to hand on
  }
  asked = query;
  const number = ++latest;
  document.body.setAttribute("aria-busy", "true");
  try {
    const answer = await ask("search", {
      query, factors, explain: true, top_k: Number($("top_k").value), effort: Number($("effort").value),
    });
    if (number === latest) show(answer);
  } catch (error) {
    if (number === latest) fail(error);
  } finally {
    if (number === latest) document.body.removeAttribute("aria-busy");
  }
}

function fail(error) {
  $("message").textContent = error.message;
  $("message").hidden = false;
}

function show(answer) {
  $("message").hidden = true;
  $("expansion").hidden = false;
  $("reset").hidden = Object.keys(factors).length === 0;
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  $("chips").replaceChildren(...answer.expansion.map(chip));
  if (focused) for (const button of $("chips").querySelectorAll("button")) if (button.dataset.key === focused) button.focus();
  const total = answer.encoding_ms + answer.search_ms;
  $("figures").textContent =
    `${answer.hits.length} of ${answer.documents.toLocaleString("en")} documents in ${total.toFixed(1)} ms ` +
    `(encoding ${answer.encoding_ms.toFixed(1)}, ${answer.exact ? "exact" : "approximate"} search ` +
    `${answer.search_ms.toFixed(2)}), ${answer.postings.toLocaleString("en")} postings of ${answer.expansion.length} terms`;
  $("hits").replaceChildren(...answer.hits.map(hit));
}

function chip(term) {
  const item = make("li", `chip ${term.own ? "own" : "new"}${term.factor === 0 ? " off" : ""}`);
  const weight = (term.weight * term.factor).toFixed(2);
  const change = (label, text, factor) => {
    const button = make("button", label === "name" ? "name" : "", text);
    button.type = "button";
    button.dataset.key = term.token + " " + label;
    button.addEventListener("click", () => {
      factors = { ...factors, [term.token]: factor };
      if (factor === 1) delete factors[term.token];
      search();
    });
    return button;
  };
  const off = term.factor === 0;
  const name = change("name", `${term.token} ${weight}`, off ? 1 : 0);
  name.setAttribute("aria-pressed", String(!off));
  name.title = off ? "take it in again" : "leave it out";
  const less = change("less", "−", Math.max(0.01, term.factor / STEP));
  less.setAttribute("aria-label", `less ${term.token}`);
  const more = change("more", "+", Math.min(1000, (term.factor || 1) * STEP));
  more.setAttribute("aria-label", `more ${term.token}`);
  item.append(name, less, more);
  return item;
}

function hit(found) {
  const item = make("li");
  const head = make("div", "head");
  head.append(make("span", "", `${found.rank}. ${found.doc_id}`), make("span", "", found.score.toFixed(3)));
  item.append(head);
  if (found.text !== undefined) item.append(marked(found.text, found.marks));
  const details = make("details");
  details.open = found.rank === 1;
  const table = bars(found);
  details.append(make("summary", "", `${found.terms.length} terms made this score`), table);
  details.addEventListener("toggle", () => { if (details.open) sources(found.doc_id, table); });
  item.append(details);
  return item;
}

function marked(text, marks) {
  const paragraph = make("p", "text");
  const characters = Array.from(text); // places count characters, not UTF-16 units
  let end = 0;
  for (const mark of marks || []) {
    paragraph.append(characters.slice(end, mark.start).join(""));
    paragraph.append(make("mark", mark.own ? "own" : "new", characters.slice(mark.start, mark.stop).join("")));
    end = mark.stop;
  }
  paragraph.append(characters.slice(end).join(""));
  return paragraph;
}

function bars(found) {
  const table = make("table");
  for (const term of found.terms.slice(0, SHOWN_TERMS)) {
    const row = make("tr");
    row.dataset.token = term.token;
    const name = make("th");
    name.scope = "row";
    name.append(make("span", term.own ? "own-word" : "new-word", term.token));
    const bar = make("meter");
    bar.max = found.terms[0].score;
    bar.value = term.score;
    bar.title = `query ${term.query_weight.toFixed(2)} × document ${term.doc_weight.toFixed(2)}`;
    bar.setAttribute("aria-label", `${term.token}: ${term.score.toFixed(3)}`);
    const cell = make("td");
    cell.append(bar);
    row.append(name, cell, make("td", "", term.score.toFixed(3)));
    table.append(row);
  }
  if (found.terms.length > SHOWN_TERMS) {
    const rest = found.terms.slice(SHOWN_TERMS);
    const row = make("tr");
    row.append(make("th", "", `${rest.length} further terms`), make("td"));
    row.append(make("td", "", rest.reduce((sum, term) => sum + term.score, 0).toFixed(3)));
    table.append(row);
  }
  return table;
}

// Tell below each term which token of the query, and which of the document, gave it.
async function sources(docId, table) {
  if (table.dataset.told) return;
  table.dataset.told = "yes";
  try {
    const answer = await ask("explain", { query: asked, doc_id: docId });
    const parts = new Map(answer.terms.map((part) => [part.token, part]));
    for (const row of table.rows) {
      const part = parts.get(row.dataset.token);
      if (!part || !part.query_from) continue;
      const from = part.doc_from ? ` → ${part.doc_from.token} (token ${part.doc_from.position})` : "";
      row.cells[0].append(make("small", "source", `${part.query_from.token}${from}`));
    }
  } catch (error) {
    delete table.dataset.told; // the table says enough; opening it again asks again
  }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
$("reset").addEventListener("click", () => { factors = {}; search(); });
for (const id of ["top_k", "effort"]) $(id).addEventListener("change", search);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== $("query")) { event.preventDefault(); $("query").select(); }
});
const given = new URLSearchParams(location.search).get("q");
if (given) { $("query").value = given; search(); }
ask("health").then((health) => {
  $("served").textContent = `${health.documents.toLocaleString("en")} documents · ${health.model}`;
  if (health.problem) fail(new Error(health.problem));
}).catch(fail);
