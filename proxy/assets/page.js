// The few behaviours that pages add when scripts run; each page works without them.
"use strict";
(() => {
  // Rows that the live page keeps.
  const MOST = 300;
  const pause = document.getElementById("pause");
  const rows = document.getElementById("rows");
  if (!pause || !rows) return;
  let paused = false;
  let missed = 0;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    missed = 0;
    pause.textContent = paused ? pause.dataset.resume : pause.dataset.pause;
  });
  document.body.addEventListener("htmx:sseBeforeMessage", (event) => {
    if (!paused || event.detail.type !== "rows") return;
    event.preventDefault();
    missed += (event.detail.data.match(/<tr>/g) || []).length;
    pause.textContent = `${pause.dataset.resume} (${missed})`;
  });
  document.body.addEventListener("htmx:sseMessage", () => {
    while (rows.rows.length > MOST) rows.deleteRow(-1);
  });
})();
