// Each part for itself: where one fails, what stands in the page without scripts stays.

for (const [id, start] of [
  ["accuracy", accuracyFigure],
  ["decisions", routingFigure],
  ["parts", groupsFigure],
  ["parallel", parallelFigure],
  ["files", downloads],
]) {
  const root = document.getElementById(id);
  if (!root) continue;
  try {
    start(root);
  } catch (error) {
    root.hidden = true;
    console.error(error);
  }
}
document.querySelectorAll("main table").forEach(sortable);
linkTrials();

// On a narrow screen a table begins where its primary budget is.
for (const head of document.querySelectorAll(".scroll thead th.primary")) {
  const region = head.closest(".scroll");
  const first = head.parentNode.cells[0].offsetWidth;
  if (head.offsetLeft + head.offsetWidth > region.clientWidth) {
    region.scrollLeft = head.offsetLeft - first;
  }
}
