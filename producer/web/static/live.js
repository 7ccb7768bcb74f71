// What happens on the farm, by server-sent events: cards of batches, the job that is waited for, the devices.

import { answered, left, number, part, rate } from "./answers.js";

const COUNTS = ["num_done", "num_jobs", "num_failed", "num_canceled", "priority"];

function set(field, text) {
  if (!field) return;
  field.hidden = !text;
  if (text && field.textContent !== text) field.textContent = text;
}

function showBatch(card, batch) {
  const field = (name) => card.querySelector(`[data-field=${name}]`);
  const state = batch.ended ? "ended" : batch.state;
  card.dataset.state = state;
  set(field("state"), state);
  for (const name of COUNTS) set(field(name), number.format(batch[name]));
  for (const name of ["failed", "canceled"]) field(name).hidden = !batch[`num_${name}`];
  const retry = field("retry");
  if (retry) retry.hidden = !batch.num_failed;
  field("progress").max = batch.num_jobs || 1;
  field("progress").value = batch.num_done + batch.num_failed + batch.num_canceled;
  set(field("rate"), batch.images_per_second ? rate(batch.images_per_second) : "");
  // Who begins to listen knows no rate yet; what the page said by the last minutes' is better than nothing.
  if (batch.ends || batch.ended || batch.waits) set(field("left"), batch.ends ? left(batch.ends) : "");
  set(field("waits"), batch.waits ?? "");
  set(field("late"), batch.late ?? "");
  showNews(batch);
}

// Jobs that ended since the page was opened: it is not exchanged under who looks at it.
function showNews(batch) {
  const news = document.querySelector("[data-news]");
  const num = news ? batch.num_done + batch.num_failed + batch.num_canceled - Number(news.dataset.news) : 0;
  if (num <= 0) return;
  news.querySelector("span").textContent = `${number.format(num)} more ${num === 1 ? "job has" : "jobs have"} ended.`;
  news.hidden = false;
}

function cards() {
  return [...document.querySelectorAll("[data-batch]")];
}

function numberOf(card) {
  return Number(card.dataset.batch);
}

const coming = new Map(); // the number of a batch whose card is asked for → what was heard of it last

async function addCard(batch) {
  const list = document.querySelector("[data-takes-new]");
  if (coming.has(batch.id)) { coming.set(batch.id, batch); return; }
  const shown = cards();
  if (shown.length && batch.id < Math.min(...shown.map(numberOf))) return; // it stands on a page of older ones
  coming.set(batch.id, batch);
  try {
    const content = await part(`/batches/${batch.id}/card`);
    const card = content.querySelector("[data-batch]");
    list.querySelector(".empty")?.remove();
    list.insertBefore(card, cards().find((other) => numberOf(other) < batch.id) ?? null);
    if (coming.get(batch.id) !== batch) showBatch(card, coming.get(batch.id));
  } finally {
    coming.delete(batch.id);
  }
}

function hear(batch) {
  const ours = document.querySelectorAll(`[data-batch="${batch.id}"]`);
  for (const card of ours) showBatch(card, batch);
  if (!ours.length && document.querySelector("[data-takes-new]")) addCard(batch).catch(() => {});
  const awaiting = document.querySelector(`[data-awaits="${batch.id}"]`);
  if (awaiting) lookAfter(awaiting, batch.ended);
}

let lookedAfter = 0;
let looking = null;

// Its batch moves on: perhaps this job has ended, too. Asked every few seconds, and not after each image of a million.
function lookAfter(awaiting, ended) {
  if (ended) location.reload();
  else looking ??= setTimeout(() => askAfter(awaiting.dataset.job).catch(() => {}), lookedAfter + 3000 - Date.now());
}

async function askAfter(job) {
  looking = null;
  lookedAfter = Date.now();
  const { state } = await (await answered(job)).json();
  if (["done", "failed", "canceled"].includes(state)) location.reload();
}

let refreshing = false;
let again = false;

// At most every two seconds, and never under a reader's fingers: then later.
async function refresh() {
  const holder = document.querySelector("[data-refreshed]");
  if (!holder) return;
  if (refreshing) { again = true; return; }
  refreshing = true;
  again = holder.contains(document.activeElement);
  try {
    if (!again) holder.replaceChildren(await part(holder.dataset.refreshed));
  } finally {
    setTimeout(() => { refreshing = false; if (again) refresh().catch(() => {}); }, 2000);
  }
}

// More than that are not fetched one by one.
const MANY_NEW = 30;

// Of the batches that are shown only those that have ended: of the others the stream tells.
async function askAfterCards() {
  const shown = cards();
  const takesNew = document.querySelector("[data-takes-new]") !== null;
  if (!shown.length && !takesNew) return;
  const numbers = shown.map(numberOf);
  const query = new URLSearchParams({ limit: 1000, from: shown.length ? Math.min(...numbers) : 1 });
  if (!takesNew) query.set("to", Math.max(...numbers));
  const { items, next } = await (await answered(`/api/v1/batches?${query}`)).json();
  if (takesNew && items.filter(({ id }) => !numbers.includes(id)).length > MANY_NEW) { location.reload(); return; }
  for (const batch of items) if (batch.ended) hear(batch);
  const there = new Set(items.map(({ id }) => id));
  const lowest = next === null ? 0 : items.at(-1).id;
  for (const card of shown) if (numberOf(card) >= lowest && !there.has(numberOf(card))) card.remove();
}

// Who begins to listen is told what goes on, and not what came to its end before: that is asked for, once.
function catchUp() {
  const awaiting = document.querySelector("[data-awaits]");
  if (awaiting) askAfter(awaiting.dataset.job).catch(() => {});
  askAfterCards().catch(() => {});
  refresh().catch(() => {});
}

const WANTS = "[data-batch], [data-takes-new], [data-awaits], [data-refreshed]";
let source = null;

// A page that nobody sees does not listen: a browser opens six connections to a server, for all its tabs together.
export function listen() {
  if (source || document.hidden || !document.querySelector(WANTS)) return;
  const opened = source = new EventSource("/api/v1/events");
  // A browser gives up for good where the answer is an error: the server starts anew, or has no ledger just now.
  opened.onerror = () => {
    if (opened !== source || opened.readyState !== EventSource.CLOSED) return;
    source = null;
    setTimeout(listen, 10000);
  };
  const on = (event, then) => opened.addEventListener(event, (message) => then(JSON.parse(message.data)));
  on("batch", (batch) => { hear(batch); refresh().catch(() => {}); });
  on("removed", ({ id }) => document.querySelectorAll(`[data-batch="${id}"]`).forEach((card) => card.remove()));
  on("worker", () => refresh().catch(() => {}));
  on("left", () => refresh().catch(() => {}));
  for (const server of ["ledger", "redis"]) on(server, ({ answers }) => { document.getElementById(server).hidden = answers; });
  on("ledger", ({ answers }) => { if (answers) catchUp(); }); // it is told first, and whatever happens from then on
}

export function deafWhileHidden() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) { listen(); return; }
    source?.close();
    source = null;
  });
}
