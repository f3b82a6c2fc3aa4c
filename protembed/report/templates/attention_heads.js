// The heads in the order of interest: what each is known for, how strongly, and a small picture of its map.

const THUMBNAIL = 56; // layout pixels
const headItems = data.kinds.map((kind, index) => headItem(kind, index));
const inView = new Set();
let shownKind = "";

function headItem({ layer, head, word, sentence, strength, expected }, index) {
  const picture = element("canvas", { width: THUMBNAIL, height: THUMBNAIL });
  picture.setAttribute("aria-hidden", "true");
  const bar = element("span", { className: "strength" }, element("span"));
  bar.firstChild.style.width = `${100 * clamp(strength, 0, 1)}%`;
  if (expected > 0 && expected < 1) {
    bar.append(element("i"));
    bar.lastChild.style.left = `${100 * expected}%`;
  }
  const words = element("span", { className: "word", textContent: short(word) });
  const where = element("span", { className: "where", textContent: capital(headName(layer, head)) });
  const text = element("span", { className: "sentence", textContent: sentence });
  const item = element("li", { tabIndex: -1 }, picture, element("div", {}, words, where, bar, text));
  item.setAttribute("role", "option");
  item.onclick = () => choose({ layer, head });
  item.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 5, PageUp: -5, Home: -Infinity, End: Infinity }[event.key];
    if (step) moveTo(index, step);
    else if (event.key === "Enter" || event.key === " ") choose({ layer, head });
    else return;
    event.preventDefault();
  };
  return item;
}

// Move among the heads that are listed, and show the map of each.
function moveTo(index, step) {
  const listed = headItems.filter((item) => !item.hidden), from = listed.indexOf(headItems[index]);
  const to = listed[clamp(from + step, 0, listed.length - 1)], { layer, head } = data.kinds[headItems.indexOf(to)];
  choose({ layer, head });
  to.focus();
}

async function drawThumbnail(item) {
  const { layer, head } = data.kinds[headItems.indexOf(item)], ofProtein = protein(), colours = theme();
  const key = `${chosen.protein} ${colours.name}`;
  if (item.dataset.drawn === key) return;
  item.dataset.drawn = key;
  const map = await loadMap(ofProtein, layer, head);
  if (item.dataset.drawn !== key) return;
  const image = painter(map, Math.ceil(map.side / THUMBNAIL))(colours), picture = item.firstChild;
  [picture.width, picture.height] = [image.width, image.height];
  picture.getContext("2d").drawImage(image, 0, 0);
}

const drawThumbnails = () => inView.forEach(drawThumbnail);

// Only pictures that are in view, or soon may be, are drawn: of 660 heads these are a dozen.
const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
    drawThumbnails();
  },
  { root: byId("ranking"), rootMargin: "400px" },
);

function listKind(kind) {
  shownKind = kind;
  headItems.forEach((item, index) => (item.hidden = kind !== "" && data.kinds[index].kind !== kind));
  byId("kinds").querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", button.value === kind));
  byId("ranking").scrollTop = 0;
  markItem();
}

function markItem() {
  const isChosen = ({ layer, head }) => layer === chosen.layer && head === chosen.head;
  headItems.forEach((item, index) => {
    item.setAttribute("aria-selected", isChosen(data.kinds[index]));
    item.tabIndex = -1;
  });
  const listed = headItems.filter((item) => !item.hidden);
  const current = listed.find((item) => item.getAttribute("aria-selected") === "true");
  if (listed.length) (current ?? listed[0]).tabIndex = 0; // the whole list is one stop of the Tab key
  if (current) bringIntoView(byId("ranking"), current);
}

// Scroll the list, and not the page, as `scrollIntoView` would.
function bringIntoView(list, item) {
  const top = item.offsetTop - list.offsetTop, bottom = top + item.offsetHeight;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
}

function describeHead() {
  const { layer, head } = chosen, kind = data.kinds.find((each) => each.layer === layer && each.head === head);
  byId("about-title").textContent = capital(headName(layer, head));
  byId("about-sentence").textContent = kind?.sentence ?? "Each cell is the mean over the heads.";
  byId("about").replaceChildren(
    ...data.statistics.slice(0, head === MEAN ? 0 : undefined).flatMap(({ name, values }) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: format(values[layer][head]) }),
    ]),
  );
}

byId("ranking").append(...headItems);
byId("kinds").append(
  ...[["", "all", data.kinds.length], ...data.kindNames].map(([value, name, count]) => {
    const button = element("button", { type: "button", value, textContent: name }, element("span", { textContent: ` ${count}` }));
    button.onclick = () => listKind(value);
    return button;
  }),
);
headItems.forEach((item) => observer.observe(item));
whenChosen(["protein"], drawThumbnails);
whenChosen(["layer", "head"], () => {
  markItem();
  describeHead();
});
document.addEventListener("themechange", drawThumbnails);
listKind("");
