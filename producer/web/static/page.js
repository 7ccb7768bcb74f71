// What the pages do in a browser: galleries as they are scrolled, the slider, copying. What is live: live.js.

import { localTimes, part } from "./answers.js";
import { deafWhileHidden, listen } from "./live.js";

function gallery() {
  const holder = document.getElementById("gallery");
  if (!holder) return;
  const asked = new WeakSet();
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) more(entry.target).catch(() => {}); // the link stays
  }, { rootMargin: "600px" });
  async function more(link) {
    if (asked.has(link)) return;
    asked.add(link);
    watch.unobserve(link);
    const found = await part(link.dataset.more).finally(() => asked.delete(link));
    const next = found.querySelector("[data-more]");
    const goesOn = found.querySelector(".tile") !== null;
    const hadFocus = link === document.activeElement;
    link.closest("p").replaceWith(found);
    if (hadFocus) next?.focus();
    if (goesOn) follow(next);
  }
  // By itself only behind a part that had something: where nothing is found, the next may be one of hundreds.
  function follow(link) {
    if (link) watch.observe(link);
  }
  holder.addEventListener("click", (event) => {
    const link = event.target.closest("[data-more]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    more(link).catch(() => location.assign(link.href));
  });
  if (holder.querySelector(".tile")) follow(holder.querySelector("[data-more]"));
}

// A picture that did not come is asked for again: the server was away, or had too much to do.
function pictures() {
  const tried = new WeakMap();
  const again = (image) => {
    const num = tried.get(image) ?? 0;
    tried.set(image, num + 1);
    if (num < 3) setTimeout(() => { image.src = image.src; }, 2000 * 2 ** num);
  };
  document.addEventListener("error", ({ target }) => { if (target instanceof HTMLImageElement) again(target); }, true);
  for (const image of document.images) if (image.complete && !image.naturalWidth) again(image);
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
deafWhileHidden();
listen();
gallery();
pictures();
slider();
copying();
for (const section of document.querySelectorAll("[data-part]")) {
  part(section.dataset.part).then((content) => section.replaceChildren(content)).catch(() => {});
}
