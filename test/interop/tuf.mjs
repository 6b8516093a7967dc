// Reads a catalog with tuf-js, another implementation of TUF, and prints what it
// found as JSON: node tuf.mjs FOLDER ADDRESS TARGET…
// FOLDER has root.json; tuf-js keeps its state there.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [folder, address, ...targets] = process.argv.slice(2);
const { Updater } = createRequire(process.env.TUF_JS + '/')('tuf-js');

mkdirSync(join(folder, 'targets'), { recursive: true });
const updater = new Updater({
  metadataDir: folder,
  metadataBaseUrl: address + '/metadata',
  targetDir: join(folder, 'targets'),
  targetBaseUrl: address + '/targets',
});
const found = {};
try {
  await updater.refresh();
  for (const name of targets) {
    const info = await updater.getTargetInfo(name);
    if (!info) {
      found[name] = null;
      continue;
    }
    const file = await updater.downloadTarget(info, join(folder, 'targets', name.replaceAll('/', '_')));
    found[name] = createHash('sha384').update(readFileSync(file)).digest('hex');
  }
  const root = JSON.parse(readFileSync(join(folder, 'root.json'))).signed.version;
  console.log(JSON.stringify({ root, found }));
} catch (e) {
  console.log(JSON.stringify({ error: e.name + ': ' + e.message }));
}
