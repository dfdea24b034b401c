// The script of the console. Every page reads, and every form posts, without it.

const search = document.getElementById("search");

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && search && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  if (event.key === "Escape" && event.target === search) search.blur();
  const copied = event.target.closest("[data-copy]");
  if (copied && (event.key === "Enter" || event.key === " ") && !event.target.closest("a, button")) {
    event.preventDefault();
    copy(copied);
  }
});

document.addEventListener("click", (event) => {
  const copied = event.target.closest("[data-copy]");
  if (copied && !event.target.closest("a, button") && !String(getSelection())) copy(copied);
});

async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.dataset.copy);
    say("Copied.");
  } catch {
    say("The browser does not let this page copy.");
  }
}

const spoken = document.getElementById("spoken");
function say(text) {
  if (!spoken) return;
  spoken.textContent = text;
  setTimeout(() => { if (spoken.textContent === text) spoken.textContent = ""; }, 4000);
}

function prepare(root) {
  for (const element of root.querySelectorAll("[data-copy]:not(pre):not([tabindex])")) {
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.setAttribute("aria-label", `Copy ${element.dataset.copy.slice(0, 200)}`);
  }
  // What only a script can do is shown only where there is one.
  for (const element of root.querySelectorAll("[data-needs-script]")) element.hidden = false;
}
prepare(document);
document.addEventListener("htmx:after:swap", () => prepare(document));
