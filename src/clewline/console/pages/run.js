// What a running step prints, as it prints it; the page is read again when the step ends.
for (const log of document.querySelectorAll("[data-log]")) {
  const source = new EventSource(log.dataset.log);
  let isFirst = true;
  source.addEventListener("open", () => (isFirst = true));
  source.addEventListener("log", (event) => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.textContent = (isFirst ? "" : log.textContent) + JSON.parse(event.data);
    isFirst = false;
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("end", () => {
    source.close();
    location.reload();
  });
}
