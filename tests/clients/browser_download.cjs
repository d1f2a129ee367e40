// Opens a directory listing in headless Chromium, clicks every link to a file, and waits for the
// downloads, as a person at a browser does. Needs nothing but Node and Chromium.
//
// usage: node browser_download.cjs CHROMIUM LISTING_URL DIRECTORY PROFILE
//
// Prints the title of the page and the names of the files that were downloaded into DIRECTORY.

const { spawn } = require('child_process');

const [program, url, directory, profile] = process.argv.slice(2);
// The sandbox needs rights that a container may not have.
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
  `--user-data-dir=${profile}`, '--remote-debugging-pipe'];
const browser = spawn(program, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });

let last = 0;
const answers = new Map();
const downloads = new Map();
let finished = () => {};

// The DevTools protocol: JSON messages that end with a zero byte.
let rest = '';
browser.stdio[4].setEncoding('utf8').on('data', (text) => {
  const messages = (rest + text).split('\0');
  rest = messages.pop();
  messages.map(JSON.parse).forEach(({ id, result, error, method, params }) => {
    if (id) {
      const { resolve, reject } = answers.get(id);
      return error ? reject(new Error(error.message)) : resolve(result);
    }
    if (method === 'Browser.downloadWillBegin') downloads.set(params.guid, params.suggestedFilename);
    if (method === 'Browser.downloadProgress' && params.state !== 'inProgress') finished(params);
  });
});

function ask(method, params = {}, sessionId = undefined) {
  last += 1;
  browser.stdio[3].write(`${JSON.stringify({ id: last, method, params, sessionId })}\0`);
  return new Promise((resolve, reject) => answers.set(last, { resolve, reject }));
}

async function main() {
  await ask('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: directory, eventsEnabled: true });
  const { targetId } = await ask('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await ask('Target.attachToTarget', { targetId, flatten: true });
  const inPage = async (expression) => {
    const options = { expression, awaitPromise: true, returnByValue: true };
    return (await ask('Runtime.evaluate', options, sessionId)).result.value;
  };
  await ask('Page.navigate', { url }, sessionId);
  while ((await inPage('document.readyState + location.href')) !== `complete${url}`) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  console.log(await inPage('document.title'));
  const links = await inPage('document.querySelectorAll("a:not([href$=\\"/\\"])").length');
  for (let at = 0; at < links; at += 1) {
    const end = new Promise((resolve) => { finished = resolve; });
    await inPage(`document.querySelectorAll("a:not([href$=\\"/\\"])")[${at}].click()`);
    const { guid, state } = await end;
    if (state !== 'completed') throw new Error(`${downloads.get(guid)}: ${state}`);
    console.log(downloads.get(guid));
  }
}

const patience = setTimeout(() => { console.log('nothing happened for 60 s'); browser.kill(); process.exit(1); }, 60000);
main().then(() => 0, (error) => { console.log(error.message); return 1; }).then((code) => {
  clearTimeout(patience);
  browser.on('exit', () => process.exit(code));
  ask('Browser.close').catch(() => browser.kill());
});
