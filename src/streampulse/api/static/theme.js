// Runs before the page is drawn, so that it never flashes in the wrong colours. "auto" follows the system.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("streampulse.theme");
  } catch {
    // Storage may be forbidden: then the system's colours it is.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
