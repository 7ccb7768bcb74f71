// Answers of the server, and what they say in the reader's words: rates, times in the reader's zone.

export const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const second = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function rate(perSecond) {
  return perSecond >= 1 ? `${perSecond.toFixed(2)} images/s` : `${(perSecond * 60).toFixed(1)} images/min`;
}

export function left(ends) {
  const minutes = Math.max(0, (new Date(ends) - Date.now()) / 60000);
  const told = minutes < 1 ? "under a minute" : minutes < 90 ? `${Math.round(minutes)} min` : `${(minutes / 60).toFixed(1)} h`;
  return `${told} left, done ${clock.format(new Date(ends))}`;
}

export function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.textContent = "until" in time.dataset ? left(time.dateTime) : date.format(new Date(time.dateTime));
  }
  for (const text of root.querySelectorAll("[data-time]")) {
    text.textContent = ("seconds" in text.dataset ? second : clock).format(new Date(text.dataset.time));
  }
}

const TRIES = 5;

function after(seconds) {
  return new Promise((then) => setTimeout(then, seconds * 1000));
}

// What is refused for now alone is asked for again when the server says.
export async function answered(path, accept = "application/json") {
  for (let tries = TRIES; ; tries--) {
    const answer = await fetch(path, { headers: { Accept: accept } });
    if (answer.ok && !answer.redirected) return answer;
    const seconds = Number(answer.headers.get("Retry-After"));
    if (!tries || !seconds || ![429, 503].includes(answer.status)) throw new Error(`${path}: ${answer.status}`);
    await after(seconds);
  }
}

export async function part(path) {
  const answer = await answered(path, "text/html");
  const holder = document.createElement("template");
  holder.innerHTML = await answer.text(); // made by our own templates, which escape
  localTimes(holder.content);
  return holder.content;
}
