// What Gradio has no component for: live sessions, and playing template and result together.
// Elements come and go with Gradio's tabs, so that they are looked up when they are needed.
"use strict";

const find = (name) => document.getElementById(name);

// ---- files that are too large ----------------------------------------------------------------------

// Refuses them before Gradio uploads them.
function refuseLarge(event) {
  const files = [...(event.target.files || event.dataTransfer?.files || [])];
  const line = find("tj-refused");
  if (!files.length || !line) return;
  const most = Number(line.dataset.mostMb);
  const large = files.find((file) => file.size > most * 1e6);
  line.hidden = !large;
  if (!large) return;
  line.textContent = `${large.name}: has ${(large.size / 1e6).toFixed(0)} MB, and this page takes ` +
    `files of up to ${most} MB; cut it or make it smaller`;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.target.files) event.target.value = "";
  scrollTo({ top: 0, behavior: "smooth" });
}

document.addEventListener("change", refuseLarge, true);
document.addEventListener("drop", refuseLarge, true);
// Gradio would add that a video cannot be played. The page says it of files that cannot be read, and
// browsers cannot play all that can be.
document.addEventListener("error", (event) => {
  if (event.target.tagName === "VIDEO") event.stopImmediatePropagation();
}, true);

// ---- template and result together -----------------------------------------------------------------

function playBoth() {
  const videos = [...document.querySelectorAll(".tj-pair video")];
  const playing = videos.some((video) => !video.paused && !video.ended);
  for (const video of videos) {
    if (playing) {
      video.pause();
    } else {
      video.currentTime = 0;
      video.play();
    }
  }
}

// ---- live sessions --------------------------------------------------------------------------------

// Runs beside the page: passes the microphone's sound on in pieces of 20 ms.
const WORKLET = `
registerProcessor("tj-microphone", class extends AudioWorkletProcessor {
  constructor() { super(); this.piece = new Int16Array(Math.round(sampleRate / 50)); this.n = 0; }
  process(inputs) {
    const sound = inputs[0][0];
    if (!sound) return true;
    for (const value of sound) {
      this.piece[this.n++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.n === this.piece.length) {
        this.port.postMessage(this.piece.slice());
        this.n = 0;
      }
    }
    return true;
  }
});`;
const AHEAD = 0.12; // seconds of sound that are kept, so that a late message makes no gap
const MOST_AHEAD = 0.6;

let live = null; // the session that is open

class Live {
  constructor() {
    this.frames = []; // [time on the clock of the sound, picture], in order
    this.next = 0; // when the next frame's sound begins
    this.shown = 0; // number of frames that were shown
    this.speaking = 0; // number of frames with sound
    this.closed = false;
  }

  async start(token) {
    say("Opening the microphone …");
    if (!navigator.mediaDevices) {
      throw new Error(
        "browsers allow the microphone only on localhost or over HTTPS; open the page there");
    }
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true },
    });
    const worklet = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
    await this.context.audioWorklet.addModule(worklet);
    URL.revokeObjectURL(worklet);
    this.gain = this.context.createGain();
    this.gain.connect(this.context.destination);
    this.setSound();
    const address = new URL("live", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      say("Waiting for the program …");
      this.socket.send(JSON.stringify({ token, rate: this.context.sampleRate }));
    };
    this.socket.onmessage = (event) =>
      typeof event.data === "string" ? this.hear(JSON.parse(event.data)) : this.queue(event.data);
    this.socket.onclose = () => this.close(this.last || "The session has ended.");
  }

  listen() {
    const source = this.context.createMediaStreamSource(this.stream);
    const microphone = new AudioWorkletNode(
      this.context, "tj-microphone", { numberOfOutputs: 0 });
    microphone.port.onmessage = ({ data }) => {
      let loudest = 0;
      for (const value of data) loudest = Math.max(loudest, Math.abs(value));
      find("tj-level") && (find("tj-level").value = loudest / 32767);
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data.buffer);
    };
    source.connect(microphone);
  }

  hear(message) {
    if (message.waiting) {
      say(`Waiting: ${message.waiting} before you`);
    } else if (message.ready) {
      this.latency = message.latency_ms;
      const canvas = find("tj-canvas");
      [canvas.width, canvas.height] = [message.width, message.height];
      this.listen();
      say("Speak: the person says it a moment later.");
      requestAnimationFrame(() => this.draw());
    } else if (message.error || message.ended) {
      this.last = message.error || message.ended;
      say(this.last, Boolean(message.error));
    }
  }

  async queue(data) {
    const head = new DataView(data);
    const bytes = head.getUint32(4, true);
    const sound = new Int16Array(data, 8, bytes / 2);
    const now = this.context.currentTime;
    if (this.next < now) this.next = now + AHEAD;
    if (this.next > now + MOST_AHEAD) return; // this clock is the slower one
    const at = this.next;
    this.next += sound.length / this.context.sampleRate;
    if (sound.some((value) => value)) {
      this.speaking += 1;
      const buffer = this.context.createBuffer(1, sound.length, this.context.sampleRate);
      buffer.copyToChannel(Float32Array.from(sound, (value) => value / 32767), 0);
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.gain);
      source.start(at);
    }
    const entry = [at, null];
    this.frames.push(entry);
    const picture = new Blob([new Uint8Array(data, 8 + bytes)], { type: "image/jpeg" });
    entry[1] = await createImageBitmap(picture);
  }

  draw() {
    if (this.closed) return;
    const now = this.context.currentTime;
    let newest = null;
    while (this.frames.length && this.frames[0][1] && this.frames[0][0] <= now) {
      newest && newest.close();
      newest = this.frames.shift()[1];
      this.shown += 1;
    }
    const canvas = find("tj-canvas");
    if (newest && canvas) {
      canvas.getContext("2d").drawImage(newest, 0, 0, canvas.width, canvas.height);
      newest.close();
    }
    requestAnimationFrame(() => this.draw());
  }

  setSound() {
    this.gain.gain.value = find("tj-sound").checked ? 1 : 0;
  }

  close(text) {
    if (this.closed) return;
    this.closed = true;
    this.stream && this.stream.getTracks().forEach((track) => track.stop());
    this.socket && this.socket.close();
    this.context && this.context.close();
    live = live === this ? null : live;
    if (!find("tj-live-status").classList.contains("tj-error")) say(text);
    setButtons();
  }
}

function say(text, wrong = false) {
  const line = find("tj-live-status");
  line.textContent = text;
  line.classList.toggle("tj-error", wrong);
}

function setButtons() {
  find("tj-start").disabled = live !== null;
  find("tj-stop").disabled = live === null;
}

async function startLive() {
  const token = find("tj-token");
  if (!token) {
    say("Nobody is prepared yet; press “Prepare the template” first.", true);
    return;
  }
  live = new Live();
  setButtons();
  try {
    await live.start(token.dataset.token);
  } catch (error) {
    const denied = error.name === "NotAllowedError" || error.name === "NotFoundError";
    say(denied ? "The microphone is missing or not allowed; allow it and start again."
      : error.message, true);
    live && live.close("");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "tj-both") playBoth();
  if (button.id === "tj-start") startLive();
  if (button.id === "tj-stop" && live) live.close("Stopped.");
});
document.addEventListener("change", (event) => {
  if (event.target.id === "tj-sound" && live && live.gain) live.setSound();
});
