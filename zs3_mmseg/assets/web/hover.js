// The name below the pointer, and the regions of a name in the legend.
// `element` holds what result_view() of zs3_mmseg/apis/web/views.py returns.
const known = { source: null, width: 0, height: 0, values: null };

const labels = () => {
  const picture = element.querySelector('.zs3-labels');
  if (!picture || !picture.complete || !picture.naturalWidth) return null;
  if (known.source !== picture.src) {
    const canvas = document.createElement('canvas');
    canvas.width = known.width = picture.naturalWidth;
    canvas.height = known.height = picture.naturalHeight;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    known.values = context.getImageData(0, 0, canvas.width, canvas.height).data;
    known.source = picture.src;
  }
  return known;
};

const button = (label) => element.querySelector(`[data-class="${label}"]`);

// Dims all but the regions of one class; without a class, nothing.
const spotlight = (label) => {
  const canvas = element.querySelector('.zs3-spot');
  const map = labels();
  if (!canvas || !map || canvas.dataset.shown === String(label)) return;
  canvas.dataset.shown = label;
  canvas.width = map.width;
  canvas.height = map.height;
  if (label === null) return;
  const context = canvas.getContext('2d');
  const veil = context.createImageData(map.width, map.height);
  for (let pixel = 0; pixel < map.width * map.height; pixel += 1) {
    if (map.values[4 * pixel] !== label) {
      veil.data.fill(255, 4 * pixel, 4 * pixel + 3);
      veil.data[4 * pixel + 3] = 150;
    }
  }
  context.putImageData(veil, 0, 0);
};

const hide = () => {
  const name = element.querySelector('.zs3-name');
  if (name) name.hidden = true;
  spotlight(null);
};

const follow = (event) => {
  const stage = event.target.closest('.zs3-stage');
  const map = stage && labels();
  if (!map) return hide();
  const box = stage.getBoundingClientRect();
  const across = (event.clientX - box.left) / box.width;
  const down = (event.clientY - box.top) / box.height;
  if (across < 0 || across >= 1 || down < 0 || down >= 1) return hide();
  const column = Math.floor(across * map.width);
  const row = Math.floor(down * map.height);
  const label = map.values[4 * (row * map.width + column)];
  const found = button(label);
  const name = element.querySelector('.zs3-name');
  name.textContent = found ? found.dataset.name : 'no name';
  name.hidden = false;
  name.style.left = `${100 * Math.min(Math.max(across, 0.12), 0.88)}%`;
  name.style.top = `${100 * down}%`;
  name.classList.toggle('zs3-below', down < 0.15);
  spotlight(found ? label : null);
};

const point = (event) => {
  const chosen = event.target.closest('[data-class]');
  if (chosen) spotlight(Number(chosen.dataset.class));
};

element.addEventListener('pointermove', (event) => {
  if (event.target.closest('[data-class]')) point(event);
  else follow(event);
});
element.addEventListener('pointerdown', follow);
element.addEventListener('pointerleave', hide);
element.addEventListener('focusin', point);
element.addEventListener('focusout', hide);
