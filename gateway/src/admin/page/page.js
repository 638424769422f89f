// Renews the page without a flash: fetches it, and takes over what has changed.
"use strict";
const seconds = Number(document.body.dataset.seconds) || 2;

async function renew() {
  const stale = () => document.getElementById("stale");
  try {
    const response = await fetch(location.href, { cache: "no-store" });
    if (!response.ok) throw new Error(String(response.status));
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    const old = document.querySelector(".scroll");
    const [left, focused] = [old?.scrollLeft ?? 0, old === document.activeElement];
    document.title = fresh.title;
    document.querySelector("header").replaceWith(fresh.querySelector("header"));
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    const scroll = document.querySelector(".scroll");
    if (scroll) {
      scroll.scrollLeft = left;
      if (focused) scroll.focus({ preventScroll: true });
    }
    document.body.dataset.renewed = String(Number(document.body.dataset.renewed || 0) + 1);
  } catch {
    stale().textContent = " · no answer, what is shown is old";
  }
  setTimeout(renew, document.hidden ? seconds * 5000 : seconds * 1000);
}

setTimeout(renew, seconds * 1000);
