// The frame of a live view is as tall as what it shows.
addEventListener("message", (event) => {
  const tall = event.data?.colt;
  if (!Number.isFinite(tall)) return;
  for (const frame of document.querySelectorAll("iframe.live")) {
    if (frame.contentWindow === event.source) frame.style.height = `${Math.min(Math.max(tall, 200), 2400)}px`;
  }
});
