// Live charts: the drawings of the server are replaced by ones that go on, over server-sent events.
{
  const KEPT = 300;

  const load = (address, make) =>
    new Promise((done, failed) => {
      const node = make();
      node.onload = done;
      node.onerror = () => failed(new Error(`${address} did not load`));
      document.head.append(node);
    });

  const loadPlot = (section) =>
    Promise.all([
      load(section.dataset.uplotStyle, () =>
        Object.assign(document.createElement("link"), { rel: "stylesheet", href: section.dataset.uplotStyle })),
      load(section.dataset.uplot, () =>
        Object.assign(document.createElement("script"), { src: section.dataset.uplot })),
    ]);

  const start = async (section) => {
    await loadPlot(section);
    const state = section.querySelector("[data-live-state]");
    const say = (text, tone = "") => {
      if (state.textContent !== text) state.textContent = text;
      state.dataset.tone = tone;
    };
    let known = null;
    let plots = [];

    const colour = (name) => getComputedStyle(section).getPropertyValue(`--${name}`).trim();
    const clock = (at, step = 0) =>
      new Date(at * 1000).toLocaleTimeString("en-GB", { timeStyle: step < 60 ? "medium" : "short" });
    const format = (value) => (value == null ? "–" : Number(value.toPrecision(3)).toString());

    const draw = () => {
      plots.forEach((each) => each.destroy());
      plots = known.charts.map((chart) => {
        const place = section.querySelector(`[data-chart="${chart.key}"] figure`);
        place.querySelectorAll("figcaption .legend, :scope > svg, .live-plot").forEach((each) => each.remove());
        place.querySelector("h3").textContent = chart.title;
        const box = document.createElement("div");
        box.className = "live-plot";
        box.setAttribute("role", "img");
        box.setAttribute("aria-label", `${chart.title}, ${chart.unit}, over the last minutes`);
        place.querySelector("figcaption").after(box);
        const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
        return new uPlot(
          {
            width: box.clientWidth || 320,
            height: 180,
            cursor: { y: false },
            scales: { y: { range: (plot, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
            axes: [
              { ...axis, space: 52, size: 30, values: (plot, ticks, axis, space, step) => ticks.map((at) => clock(at, step)) }, { ...axis, size: 44, values: (plot, ticks) => ticks.map(format) },
            ],
            series: [
              { label: "time", value: (plot, at) => (at == null ? "–" : clock(at)) },
              ...chart.lines.map((line, place) => ({
                label: line.name,
                stroke: colour(line.tone),
                width: 2,
                dash: line.dashed ? [[6, 4], [2, 3]][place % 2] : undefined,
                points: { show: false },
                value: (plot, value) => format(value),
              })),
            ],
          },
          [known.times, ...chart.lines.map((line) => line.values)],
          box,
        );
      });
    };

    const add = (sent) => {
      known.times = [...known.times, ...sent.times].slice(-KEPT);
      known.charts.forEach((chart, number) => {
        chart.lines.forEach((line, place) => {
          line.values = [...line.values, ...sent.charts[number].lines[place].values].slice(-KEPT);
        });
        plots[number].setData([known.times, ...chart.lines.map((line) => line.values)]);
      });
    };

    const show = (sent) => {
      for (const chart of sent.charts) {
        section.querySelector(`[data-chart="${chart.key}"] figcaption p`).textContent = chart.sentence;
      }
      for (const [name, text] of Object.entries(sent.now)) {
        section.querySelector(`[data-now="${name}"]`).textContent = text;
      }
    };

    const read = (event) => {
      const sent = JSON.parse(event.data);
      if (event.type === "history" || !known) {
        known = sent;
        draw();
      } else {
        add(sent);
      }
      show(sent);
      if (sent.now.requests !== "–") {
        document.querySelector("[data-live-problem]")?.remove();
        say("Live");
      }
    };

    const source = new EventSource(section.dataset.live);
    source.addEventListener("history", read);
    source.addEventListener("point", read);
    source.addEventListener("silence", (event) => say(`${event.data} Trying again.`, "bad"));
    source.onerror = () => say("The console does not answer. Trying again.", "bad");

    new ResizeObserver(() => {
      plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth || 320, height: 180 }));
    }).observe(section);
    const again = () => known && draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    new MutationObserver(again).observe(document.documentElement, { attributes: true });
  };

  const section = document.querySelector("[data-live]");
  if (section?.dataset.uplot) start(section);
}
