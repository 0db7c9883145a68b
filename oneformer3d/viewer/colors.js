// What the points are coloured by: a label of each point, and a colour of each label.

const UNLABELED = [190, 190, 190];
const VERDICTS = [UNLABELED, [70, 170, 90], [225, 60, 50]]; // no ground truth, right, wrong
const HIDDEN_SCORE = 0.35; // how much colour is left of points that a text is not about

class Colors {
  constructor(page) {
    this.page = page;
  }

  // what this scene can be coloured by
  modes() {
    const { scene, live } = this.page;
    return [
      ['rgb', true],
      ['class', scene.classes.length],
      ['instance', scene.objects.length],
      ['panoptic', scene.classes.length],
      ['score', scene.objects.length],
      ['ground truth', scene.truth],
      ['errors', scene.verdict],
      ['pieces', scene.pieces.length],
      ['features', scene.features.length],
      ['similarity', scene.answers.length || (live && live.asks)],
    ].filter(([, there]) => there).map(([mode]) => mode);
  }

  // colour of a score in 0…1
  heat(score) {
    const row = 3 * Math.round(255 * Math.min(1, Math.max(0, score)));
    return [...this.page.scene.heat.slice(row, row + 3)];
  }

  labels(mode) {
    const { scene, text } = this.page;
    const scores = text < 0 ? [] : scene.answers[text].scores;
    return {
      class: () => [scene.semantic, scene.classes.map(one => one.color)],
      instance: () => [scene.instance, scene.objects.map(one => one.color)],
      score: () => [scene.instance, scene.objects.map(one => this.heat(one.score))],
      panoptic: () => [scene.panoptic, scene.panoptic_colors],
      'ground truth': () => [scene.truth, scene.truth_classes.map(one => one.color)],
      errors: () => [scene.verdict, VERDICTS],
      pieces: () => [scene.mask, scene.pieces],
      features: () => [scene.mask, scene.features],
      similarity: () => [scene.mask, Array.from(scores, score => this.heat(score / 255))],
    }[mode]();
  }

  // (n, 4) uint8, an alpha of 0 where a point is not shown
  paint(mode, threshold, isShown) {
    const { scene, count } = this.page;
    const [labels, table] = mode === 'rgb' ? [null, []] : this.labels(mode);
    const none = mode === 'similarity' ? this.heat(0) : UNLABELED;
    const colors = new Uint8Array(4 * count);
    for (let point = 0, from = 0, to = 0; point < count; point++, from += 3, to += 4) {
      const light = (scene.rgb[from] + scene.rgb[from + 1] + scene.rgb[from + 2]) / 765;
      const color = labels ? table[labels[point]] || none : null;
      const fades = mode === 'similarity' && this.page.scoreAt(point) < threshold;
      for (let k = 0; k < 3; k++) {
        // the scan's own light and dark keeps shapes apart
        let value = labels ? color[k] * (0.65 + 0.35 * light) : scene.rgb[from + k];
        if (fades) value = HIDDEN_SCORE * value + 70 * light;
        colors[to + k] = value;
      }
      colors[to + 3] = isShown(point) ? 255 : 0;
    }
    return colors;
  }
}
