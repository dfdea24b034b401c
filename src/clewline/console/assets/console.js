// The script of the console. Every page reads, and every form posts, without it.

const search = document.getElementById("search");

// The palette: what the text in the field names, below it, chosen with arrows or a click.
const list = document.getElementById("suggestions");
let chosen = -1, waiting = 0, asked = null;

function choose(place) {
  const options = list.querySelectorAll("[role=option]");
  chosen = options.length ? (place + options.length) % options.length : -1;
  options.forEach((option, at) => option.setAttribute("aria-selected", String(at === chosen)));
  if (chosen >= 0) search.setAttribute("aria-activedescendant", options[chosen].id);
  else search.removeAttribute("aria-activedescendant");
}

function show(isOpen) {
  list.hidden = !isOpen;
  search.setAttribute("aria-expanded", String(isOpen));
  if (!isOpen) { chosen = -1; search.removeAttribute("aria-activedescendant"); }
}

async function suggest() {
  asked?.abort();
  asked = new AbortController();
  try {
    const address = `/search/suggestions?q=${encodeURIComponent(search.value.slice(0, 500))}`;
    const answer = await fetch(address, { signal: asked.signal });
    if (!answer.ok || answer.redirected) return show(false);
    list.innerHTML = await answer.text(); // escaped by the server, and the policy runs no script
    chosen = -1;
    show(list.children.length > 0 && document.activeElement === search);
  } catch (error) {
    if (error.name !== "AbortError") show(false);
  }
}

if (search && list) {
  search.setAttribute("role", "combobox");
  search.setAttribute("aria-controls", list.id);
  search.setAttribute("aria-autocomplete", "list");
  show(false);
  search.addEventListener("focus", suggest);
  search.addEventListener("blur", () => { asked?.abort(); show(false); });
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(suggest, 120);
  });
  search.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      choose(chosen < 0 && step < 0 ? -1 : chosen + step);
    } else if (event.key === "Enter" && chosen >= 0) {
      event.preventDefault();
      location.assign(list.children[chosen].dataset.address);
    }
  });
  list.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps focus
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) location.assign(option.dataset.address);
  });
}

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
  for (const element of root.querySelectorAll("[data-copy]:not(pre):not([tabindex]):not(a *)")) {
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.setAttribute("aria-label", `Copy ${element.dataset.copy.slice(0, 200)}`);
  }
  // What only a script can do is shown only where there is one.
  for (const element of root.querySelectorAll("[data-needs-script]")) element.hidden = false;
}
prepare(document);
document.addEventListener("htmx:after:swap", () => prepare(document));
