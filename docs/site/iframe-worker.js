// A page that is opened as a file may start no worker. This one is a hidden frame, for the search.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement('iframe');
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent('message', {data}));
      const script = this.inside.document.createElement('script');
      this.loaded = new Promise(done => { script.onload = done; });
      script.src = url;
      this.inside.document.body.append(script);
    }

    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent('message', {data})));
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
