// Sets the colours before the page is drawn, so that the page does not flash. "auto" follows the system.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("streampulse.theme");
  } catch {
    // The browser may forbid storage. Then the page uses the system's colours.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
