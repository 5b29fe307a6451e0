// The frame of a live view is as tall as what it shows.
addEventListener("message", (event) => {
  const tall = event.data?.colt;
  if (!Number.isFinite(tall)) return;
  for (const frame of document.querySelectorAll("iframe.live")) {
    if (frame.contentWindow === event.source) frame.style.height = `${Math.min(Math.max(tall, 200), 2400)}px`;
  }
});

// The theme's toggles of the navigation have a picture and no name.
addEventListener("DOMContentLoaded", () => {
  for (const toggle of document.querySelectorAll(".bd-sidebar details > summary, .bd-toc details > summary, nav details > summary")) {
    const page = toggle.closest("li")?.querySelector("a");
    if (!toggle.textContent.trim() && page) toggle.setAttribute("aria-label", `pages below ${page.textContent.trim()}`);
  }
});
