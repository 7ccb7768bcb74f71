// What is live on the page: batches by server-sent events, galleries as they are scrolled, times in the reader's zone.

const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const second = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const COUNTS = ["num_done", "num_jobs", "num_failed", "num_canceled", "priority"];

function rate(perSecond) {
  return perSecond >= 1 ? `${perSecond.toFixed(2)} images/s` : `${(perSecond * 60).toFixed(1)} images/min`;
}

function left(ends) {
  const minutes = Math.max(0, (new Date(ends) - Date.now()) / 60000);
  const told = minutes < 1 ? "under a minute" : minutes < 90 ? `${Math.round(minutes)} min` : `${(minutes / 60).toFixed(1)} h`;
  return `${told} left, done ${clock.format(new Date(ends))}`;
}

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.textContent = "until" in time.dataset ? left(time.dateTime) : date.format(new Date(time.dateTime));
  }
  for (const text of root.querySelectorAll("[data-time]")) {
    text.textContent = ("seconds" in text.dataset ? second : clock).format(new Date(text.dataset.time));
  }
}

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

async function part(path) {
  const answer = await fetch(path, { headers: { Accept: "text/html" } });
  if (!answer.ok || answer.redirected) throw new Error(`${path}: ${answer.status}`);
  const holder = document.createElement("template");
  holder.innerHTML = await answer.text(); // made by our own templates, which escape
  localTimes(holder.content);
  return holder.content;
}

const asked = new Set();

async function addCard(id) {
  const list = document.querySelector("[data-takes-new]");
  const newest = Math.max(0, ...[...list.querySelectorAll("[data-batch]")].map((card) => Number(card.dataset.batch)));
  if (asked.has(id) || id <= newest) return;
  asked.add(id);
  const card = await part(`/batches/${id}/card`);
  list.querySelector(".empty")?.remove();
  list.prepend(card);
}

function hear(batch) {
  const cards = document.querySelectorAll(`[data-batch="${batch.id}"]`);
  for (const card of cards) showBatch(card, batch);
  if (!cards.length && document.querySelector("[data-takes-new]")) addCard(batch.id).catch(() => asked.delete(batch.id));
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
  const { state } = await (await fetch(job)).json();
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

function listen() {
  const wants = "[data-batch], [data-takes-new], [data-awaits], [data-refreshed]";
  if (!document.querySelector(wants)) return;
  const source = new EventSource("/api/v1/events");
  // A browser gives up for good where the answer is an error: the server starts anew, or has no ledger just now.
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(listen, 10000); };
  const on = (event, then) => source.addEventListener(event, (message) => then(JSON.parse(message.data)));
  on("batch", (batch) => { hear(batch); refresh().catch(() => {}); });
  on("removed", ({ id }) => document.querySelectorAll(`[data-batch="${id}"]`).forEach((card) => card.remove()));
  on("worker", () => refresh().catch(() => {}));
  on("left", () => refresh().catch(() => {}));
  for (const server of ["ledger", "redis"]) on(server, ({ answers }) => { document.getElementById(server).hidden = answers; });
}

function gallery() {
  const holder = document.getElementById("gallery");
  if (!holder) return;
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) more(entry.target);
  }, { rootMargin: "600px" });
  async function more(link) {
    watch.unobserve(link);
    const found = await part(link.dataset.more).catch(() => null);
    if (!found) return; // the link stays: it leads there, too
    link.closest("p").replaceWith(found);
    look();
  }
  function look() {
    for (const link of holder.querySelectorAll("[data-more]")) watch.observe(link);
  }
  look();
}

function slider() {
  const holder = document.querySelector("[data-slider]");
  const range = document.getElementById("split");
  if (!holder || !range) return;
  const show = () => holder.style.setProperty("--split", `${range.value}%`);
  const follow = (event) => {
    const box = holder.getBoundingClientRect();
    range.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
    show();
  };
  holder.addEventListener("pointerdown", (event) => { event.preventDefault(); holder.setPointerCapture(event.pointerId); follow(event); });
  holder.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  range.addEventListener("input", show);
  show();
}

function copying() {
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
      button.textContent = "Copied";
    });
  }
}

localTimes(document);
listen();
gallery();
slider();
copying();
for (const section of document.querySelectorAll("[data-part]")) {
  part(section.dataset.part).then((content) => section.replaceChildren(content)).catch(() => {});
}
