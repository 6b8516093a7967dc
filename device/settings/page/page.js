// The page works without this. It keeps what is shown up to date, says that something
// is being done, and lets Escape close a question.
"use strict";
const now = document.getElementById("now");

async function look() {
  if (document.hidden || now.contains(document.activeElement)) return;
  const answer = await fetch("/").catch(() => null);
  if (!answer || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("now");
  if (fresh && fresh.textContent !== now.textContent && !now.contains(document.activeElement)) now.replaceChildren(...fresh.childNodes);
}
setInterval(look, 5000);

document.addEventListener("submit", () => {
  const working = document.getElementById("working");
  setTimeout(() => { working.textContent = working.dataset.text; }, 300);
});

document.addEventListener("keydown", (e) => {
  const cancel = document.getElementById("cancel");
  if (e.key === "Escape" && cancel) cancel.click();
});
