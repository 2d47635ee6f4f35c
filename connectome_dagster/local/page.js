"use strict";

const EVERY_MS = 2000; // often enough to watch a load, seldom enough to cost nothing
const TOKEN = document.body.dataset.token;
const byId = (id) => document.getElementById(id);
const collection = document.querySelector("main").dataset.collection;

const ask = (path, method = "GET") =>
  fetch(path, { method, headers: { "X-Connectome-Page": TOKEN }, cache: "no-store" });

const parsed = (html) => {
  const template = document.createElement("template");
  template.innerHTML = html; // escaped by the server; the policy of the page runs no script in it
  return template;
};

// ---- what the page shows stays what the server has

let paused = false;
let timer = 0;
let shown = {};

function showCollections(html) {
  const list = byId("collections");
  const fresh = parsed(html).content;
  const links = [...list.querySelectorAll("a")];
  const freshLinks = [...fresh.querySelectorAll("a")];
  const address = (link) => link.getAttribute("href");
  const same =
    links.length === freshLinks.length &&
    links.every((link, place) => address(link) === address(freshLinks[place]));
  if (!same) {
    const focused = links.find((link) => link === document.activeElement);
    list.replaceChildren(fresh);
    if (focused) freshLinks.find((link) => address(link) === address(focused))?.focus();
    return;
  }
  links.forEach((link, place) => {
    const count = link.querySelector(".count");
    const freshCount = freshLinks[place].querySelector(".count");
    if (count.textContent !== freshCount.textContent) count.textContent = freshCount.textContent;
  });
}

function showRequests(html) {
  const body = byId("requests");
  const known = new Map([...body.rows].map((row) => [row.dataset.sequence, row]));
  const rows = [...parsed(html).content.querySelectorAll("tr")];
  const kept = rows.map((row) => {
    const old = known.get(row.dataset.sequence);
    if (!old) row.classList.add("new");
    if (old && old.innerHTML !== row.innerHTML) old.innerHTML = row.innerHTML;
    return old ?? row;
  });
  for (const row of known.values()) row.classList.remove("new");
  const stay = new Set(kept);
  for (const row of [...body.rows]) if (!stay.has(row)) row.remove();
  // From the last to the first: rows that are in their place already are not touched.
  kept.reduceRight((next, row) => {
    if (row.nextElementSibling !== next || row.parentNode !== body) body.insertBefore(row, next);
    return row;
  }, null);
}

async function showDocuments() {
  const answer = await ask(`/page/documents?collection=${encodeURIComponent(collection)}`);
  if (!answer.ok) return;
  const section = byId("documents");
  const fresh = parsed(await answer.text());
  if (section.innerHTML === fresh.innerHTML) return;
  const scrolled = section.querySelector(".documents")?.scrollTop ?? 0;
  section.replaceChildren(fresh.content);
  const box = section.querySelector(".documents");
  if (box) box.scrollTop = scrolled;
}

async function refresh() {
  const selected = collection === undefined ? "" : `?collection=${encodeURIComponent(collection)}`;
  const answer = await ask(`/page/now${selected}`);
  if (answer.status === 403) {
    location.reload(); // another server than the one this page came from
    return;
  }
  const now = await answer.json();
  const changed = now.requests !== shown.requests || now.collections !== shown.collections;
  if (now.collections !== shown.collections) showCollections(now.collections);
  if (now.requests !== shown.requests) showRequests(now.requests);
  shown = now;
  if (changed && collection !== undefined) await showDocuments();
}

function pulse(answers) {
  const text = answers ? "answers" : "does not answer";
  if (byId("pulse").textContent === text) return;
  byId("pulse").textContent = text;
  byId("pulse").classList.toggle("away", !answers);
}

async function tick() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  try {
    await refresh();
    pulse(true);
  } catch {
    pulse(false);
  }
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(tick, EVERY_MS);
}

document.addEventListener("visibilitychange", tick);
byId("pause").hidden = false;
byId("pause").addEventListener("click", ({ target }) => {
  paused = !paused;
  target.textContent = paused ? "Resume" : "Pause";
  tick();
});

// ---- credentials are here only while they are shown

const hidden = new Map();
const reveal = byId("reveal");

function hideCredentials() {
  for (const [place, text] of hidden) place.textContent = text;
  hidden.clear();
  reveal.textContent = "Show credentials";
}

async function showCredentials() {
  const answer = await ask("/page/credentials", "POST");
  if (!answer.ok) return location.reload();
  const credentials = await answer.json();
  for (const place of document.querySelectorAll(".credential")) {
    hidden.set(place, place.textContent);
    place.textContent = credentials[place.dataset.role][place.dataset.form];
  }
  reveal.textContent = "Hide credentials";
}

if (reveal) {
  reveal.hidden = false;
  reveal.addEventListener("click", async () => {
    if (hidden.size) return hideCredentials();
    try {
      await showCredentials();
    } catch {
      pulse(false);
    }
  });
  addEventListener("pagehide", hideCredentials);
}

// ---- copying, and the language one chose

for (const button of document.querySelectorAll(".snippet button")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentNode.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
}

for (const input of document.querySelectorAll(".api input")) {
  const kept = sessionStorage.getItem(`connectome ${input.name}`);
  if (kept === input.value) input.checked = true;
  input.addEventListener("change", () =>
    sessionStorage.setItem(`connectome ${input.name}`, input.value),
  );
}

tick();
