"use strict";

const $ = (id) => document.getElementById(id);
const STEP = 1.5; // what + and − multiply a weight by
const SHOWN_TERMS = 12;
const SHOWN_CHIPS = matchMedia("(max-width: 40rem)").matches ? 12 : 30;
const token = new URLSearchParams(location.hash.slice(1)).get("token");
let asked = ""; // the query whose answers are shown
let latest = 0; // number of the newest request; answers of older ones are dropped
let panels = []; // one for each model that is asked

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text; // never HTML: texts and queries are anybody's
  return element;
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = "Bearer " + token;
  let response;
  try {
    response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  } catch (error) {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || response.statusText);
  return answer;
}

// A model's answer: its terms of the query, what the search took, and the documents.
function makePanel(model) {
  const root = make("section", "panel");
  const panel = { model, root, factors: {}, allTerms: false, answer: null, chips: make("ul", "chips") };
  panel.figures = make("p", "figures");
  panel.figures.setAttribute("role", "status");
  panel.hits = make("ol", "hits");
  root.setAttribute("aria-label", model || "Answer");
  panel.chips.setAttribute("aria-label", "Terms of the query");
  panel.hits.setAttribute("aria-label", "Documents found");
  if (model) root.append(make("h2", "", model));
  root.append(panel.chips, panel.figures, panel.hits);
  return panel;
}

function settlePanels() {
  const wanted = [$("model").value, $("beside").value].filter((name, place, all) => place === 0 || (name && name !== all[0]));
  if (wanted.join("\n") === panels.map((panel) => panel.model).join("\n") && panels.length) return; // and the focus stays
  panels = wanted.map((name) => panels.find((panel) => panel.model === name) || makePanel(name));
  $("panels").className = panels.length > 1 ? "two" : "";
  $("panels").replaceChildren(...panels.map((panel) => panel.root));
}

async function search() {
  const query = $("query").value;
  if (!query.trim()) return;
  settlePanels();
  if (query !== asked) for (const panel of panels) { panel.factors = {}; panel.allTerms = false; }
  asked = query;
  history.replaceState(null, "", address(query)); // to hand on
  const number = ++latest;
  document.body.setAttribute("aria-busy", "true");
  try {
    const answers = await Promise.all(panels.map((panel) => ask("search", {
      query, factors: panel.factors, explain: true, top_k: Number($("top_k").value), effort: Number($("effort").value),
      ...(panel.model ? { model: panel.model } : {}),
    })));
    if (number !== latest) return;
    $("message").hidden = true;
    $("legend").hidden = false;
    $("intro").hidden = true;
    const ranks = answers.map((answer) => new Map(answer.hits.map((hit) => [hit.doc_id, hit.rank])));
    panels.forEach((panel, place) => show(panel, answers[place], ranks[1 - place]));
  } catch (error) {
    if (number === latest) fail(error);
  } finally {
    if (number === latest) document.body.removeAttribute("aria-busy");
  }
}

function address(query) {
  const said = { q: query };
  if ($("model").selectedIndex > 0) said.model = $("model").value;
  if ($("beside").value) said.beside = $("beside").value;
  return "?" + new URLSearchParams(said) + location.hash;
}

function fail(error) {
  $("message").textContent = error.message;
  $("message").hidden = false;
}

function show(panel, answer, ranksBeside) {
  panel.answer = answer;
  showChips(panel);
  const total = answer.encoding_ms + answer.search_ms;
  panel.figures.textContent =
    `${answer.hits.length} of ${answer.documents.toLocaleString("en")} documents in ${total.toFixed(1)} ms ` +
    `(${answer.encoding_ms < 0.05 ? "query known" : `encoding ${answer.encoding_ms.toFixed(1)}`}, ${answer.exact ? "exact" : "approximate"} search ` +
    `${answer.search_ms.toFixed(2)}), ${answer.postings.toLocaleString("en")} postings of ${answer.expansion.length} terms`;
  panel.hits.replaceChildren(...answer.hits.map((found) => hit(panel, found, ranksBeside)));
  if (!answer.hits.length) panel.hits.append(make("li", "nothing", "No document has any of the terms that are left."));
}

function showChips(panel) {
  const { chips, answer } = panel;
  const focused = document.activeElement && chips.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const shown = panel.allTerms ? answer.expansion : answer.expansion.slice(0, SHOWN_CHIPS);
  chips.replaceChildren(...shown.map((term) => chip(panel, term)));
  if (!answer.expansion.length) chips.append(make("li", "hint", "The model reads no term in it."));
  const extra = (key, text, act) => {
    const item = make("li");
    const button = make("button", "extra", text);
    button.type = "button";
    button.dataset.key = key;
    button.addEventListener("click", act);
    item.append(button);
    chips.append(item);
  };
  const rest = answer.expansion.length - shown.length;
  if (rest > 0) extra("all", `${rest} more terms`, () => { panel.allTerms = true; showChips(panel); });
  if (Object.keys(panel.factors).length) extra("reset", "Reset weights", () => { panel.factors = {}; search(); });
  if (focused) {
    const buttons = [...chips.querySelectorAll("button")];
    (buttons.find((button) => button.dataset.key === focused) || buttons[0]).focus();
  }
}

function chip(panel, term) {
  const off = term.factor === 0;
  const item = make("li", `chip ${term.own ? "own" : "new"}${off ? " off" : ""}`);
  const change = (what, text, factor, label) => {
    const button = make("button", what, text);
    button.type = "button";
    button.dataset.key = `${what} ${term.token}`;
    if (label) button.setAttribute("aria-label", label);
    button.addEventListener("click", () => {
      panel.factors = { ...panel.factors, [term.token]: factor };
      if (factor === 1) delete panel.factors[term.token];
      search();
    });
    return button;
  };
  const name = change("name", `${term.token} ${(term.weight * term.factor).toFixed(2)}`, off ? 1 : 0);
  name.setAttribute("aria-pressed", String(!off));
  name.title = off ? "take it in again" : "leave it out";
  const less = change("less", "−", Math.max(0.01, term.factor / STEP), `less ${term.token}`);
  const more = change("more", "+", Math.min(1000, (term.factor || 1) * STEP), `more ${term.token}`);
  less.disabled = off;
  item.append(name, less, more);
  return item;
}

function hit(panel, found, ranksBeside) {
  const item = make("li");
  const head = make("div", "head");
  head.append(make("span", "", `${found.rank}. ${found.doc_id}`));
  if (ranksBeside) {
    const other = ranksBeside.get(found.doc_id);
    head.append(make("span", other ? "" : "only", other ? `beside: ${other}.` : "only here"));
  }
  head.append(make("span", "score", found.score.toFixed(3)));
  item.append(head);
  if (found.text !== undefined) item.append(marked(found.text, found.marks));
  const details = make("details");
  details.open = found.rank === 1;
  const table = bars(found);
  const n = found.terms.length;
  details.append(make("summary", "", n === 1 ? "1 term made this score" : `${n} terms made this score`), table);
  details.addEventListener("toggle", () => { if (details.open) sources(panel, found.doc_id, table); });
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
    const bar = make("meter", term.own ? "own" : "new");
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
async function sources(panel, docId, table) {
  if (table.dataset.told) return;
  table.dataset.told = "yes";
  try {
    const model = panel.model ? { model: panel.model } : {};
    const answer = await ask("explain", { query: asked, doc_id: docId, ...model });
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

function offerModels(models, given) {
  if (models.length < 2) return;
  for (const label of document.querySelectorAll(".of-many")) label.hidden = false;
  for (const { name } of models) for (const id of ["model", "beside"]) $(id).append(make("option", "", name));
  for (const id of ["model", "beside"]) {
    if (models.some(({ name }) => name === given.get(id))) $(id).value = given.get(id);
  }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
for (const id of ["model", "beside", "top_k", "effort"]) $(id).addEventListener("change", search);
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !typing) { event.preventDefault(); $("query").select(); }
});
ask("health").then((health) => {
  const given = new URLSearchParams(location.search);
  offerModels(health.models, given);
  const sizes = health.models.map((one) => `${one.documents.toLocaleString("en")} documents · ${one.model}`);
  $("served").textContent = [...new Set(sizes)].join(", ");
  if (health.problem) fail(new Error(health.problem));
  if (given.get("q")) { $("query").value = given.get("q"); search(); }
}).catch(fail);
