// Sliders of the page Try it: they fill the fields, and ask again without leaving the page.
const form = document.querySelector("[data-try]");
let asked = 0;

async function ask() {
  const address = new URL(form.action);
  address.search = new URLSearchParams(new FormData(form)).toString();
  const result = document.getElementById("try-result");
  const number = ++asked;
  result.classList.add("is-old");
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.getElementById("try-result");
  if (number !== asked) return;
  if (!found) { location.assign(address); return; }
  result.replaceWith(document.adoptNode(found));
  history.replaceState(null, "", address);
  if (window.htmx) window.htmx.process(found);
}

for (const range of form ? form.querySelectorAll(".try-range") : []) {
  const field = document.getElementById(range.dataset.for);
  range.hidden = false;
  range.addEventListener("input", () => {
    field.value = range.dataset.kind === "integer" ? range.value : Number(Number(range.value).toPrecision(4));
  });
  range.addEventListener("change", ask);
  field.addEventListener("input", () => { if (field.value) range.value = field.value; });
}
