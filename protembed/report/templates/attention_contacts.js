// Contacts of the chosen protein: predicted above the diagonal, and those of the structure below it.

const contactView = new View("contacts");

async function showContacts() {
  const ofProtein = protein(), contacts = ofProtein.contacts;
  byId("contacts").hidden = !contacts;
  if (!contacts) return;
  byId("contacts-unpredicted").hidden = contacts.predicted;
  const pixels = await unpack(contacts);
  if (ofProtein !== protein()) return;
  const side = Math.sqrt(pixels.length), { block, levels, predicted, known } = contacts;
  const value = (step) => clamp(step, 0, levels - 1) / (levels - 1);
  const note = block > 1 ? ", maximum of the block" : "";
  contactView.show({
    protein: ofProtein, side, block,
    title: `${short(ofProtein.id)}: contacts${predicted ? "" : " in the structure"}`,
    file: `${short(ofProtein.id)}_contacts`,
    image: (colours) =>
      paint(side, (pixel) => {
        const row = Math.floor(pixel / side), column = pixel % side;
        if (row === column) return channels(colours.rule);
        if (row < column && predicted) return shade(colours.scales.contact, value(pixels[pixel]));
        return channels(row > column && pixels[pixel] ? colours.contrast : colours.surface);
      }),
    axes: ["residue", "residue"],
    scale: predicted ? { title: "predicted", use: "contact", marks: QUARTERS.map((mark) => [mark, format(mark)]) } : null,
    legend: known ? [{ name: "structure", colour: "contrast" }] : [],
    pair(row, column) {
      const [low, high] = [Math.min(row, column), Math.max(row, column)];
      if (low === high) return cellName(this, low);
      const words = [], step = pixels[low * side + high];
      if (predicted) words.push(`predicted ${between(value(step - 0.5), value(step + 0.5))}${note}`);
      if (known) words.push(`${pixels[high * side + low] ? "in contact" : "no contact"} in the structure`);
      return `${cellName(this, low)} – ${cellName(this, high)}: ${words.join(", ")}`;
    },
  });
}

whenChosen(["protein"], showContacts);
