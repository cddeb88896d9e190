// Reads {"url", "ca"} from stdin, connects as Backstage would, and prints "ok" or the code of the error.
const tls = require('node:tls');

let input = '';
process.stdin.on('data', chunk => (input += chunk));
process.stdin.on('end', () => {
  const { url, ca } = JSON.parse(input);
  const { hostname, port } = new URL(url);
  const socket = tls.connect({ host: hostname, port: Number(port), ca, timeout: 30000 });
  const finish = text => {
    console.log(text);
    socket.destroy();
  };
  socket.on('secureConnect', () => finish(socket.authorized ? 'ok' : socket.authorizationError));
  socket.on('error', error => finish(error.code));
  socket.on('timeout', () => finish('TIMEOUT'));
});
