// Arrow keys move between the boxes of a drawn graph: along the arrows, and within a layer.
document.addEventListener("keydown", (event) => {
  const here = event.target.closest?.(".graph-node");
  if (!here || event.altKey || event.ctrlKey || event.metaKey || !event.key.startsWith("Arrow")) return;
  const nodes = [...here.closest("svg").querySelectorAll(".graph-node")];
  const leadsTo = (node) => (node.dataset.to ?? "").split(" ").filter(Boolean).map((n) => nodes[n]);
  const middle = (node) => {
    const box = node.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const [x, y] = middle(here);
  const away = (node) => Math.hypot(middle(node)[0] - x, middle(node)[1] - y);
  const isThere = {
    ArrowRight: (node) => middle(node)[0] > x + 1,
    ArrowLeft: (node) => middle(node)[0] < x - 1,
    ArrowDown: (node) => middle(node)[1] > y + 1,
    ArrowUp: (node) => middle(node)[1] < y - 1,
  }[event.key];
  const beside = nodes.filter((node) => node.dataset.layer === here.dataset.layer);
  const joined = [...leadsTo(here), ...nodes.filter((node) => leadsTo(node).includes(here))];
  const found = [joined, beside, nodes].map((each) => each.filter(isThere)).find((each) => each.length);
  if (!found) return;
  event.preventDefault();
  found.sort((one, other) => away(one) - away(other))[0].focus();
});
