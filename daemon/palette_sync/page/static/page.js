// Keeps the page up to date: fetches it again and replaces what changed. Without JavaScript a reload does the same.
"use strict";
const INTERVAL = 10_000; // milliseconds
const live = document.getElementById("live");
const poll = document.getElementById("poll");

// A form that somebody is filling in, and text that somebody has selected, stay as they are.
function inUse() {
  const active = document.activeElement;
  const typing = active && live.contains(active) && active.matches("input, select");
  return typing || !getSelection().isCollapsed;
}

async function refresh() {
  if (!("poll" in live.dataset) || document.hidden || inUse()) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(8_000) });
    if (answer.status === 401) return location.reload(); // the session has ended: this shows the login
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (inUse()) return;
    const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const opened = [...live.querySelectorAll("details[open]")].map((one) => one.id);
    live.replaceChildren(...fresh.getElementById("live").childNodes);
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    document.title = fresh.title;
    poll.textContent = fresh.getElementById("poll").textContent;
    poll.className = "muted right";
    if (focused !== null) {
      [...live.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus({ preventScroll: true });
    }
  } catch {
    poll.className = "right stale";
    if (!poll.textContent.startsWith("no answer")) poll.textContent = `no answer; ${poll.textContent}`;
  }
}

setInterval(refresh, INTERVAL);
document.addEventListener("visibilitychange", refresh);
