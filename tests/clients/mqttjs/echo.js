// An MQTT.js client that publishes to itself: URL [CAFILE].
'use strict'

const fs = require('node:fs')
const mqtt = require('mqtt')

const [url, cafile] = process.argv.slice(2)
const client = mqtt.connect(url, {
  clientId: 'mqttjs',
  protocolVersion: 5,
  reconnectPeriod: 0,
  ca: cafile && fs.readFileSync(cafile)
})
const sent = [5, 70_000, 1_000_000].map((size) => Buffer.alloc(size, 'payload'))

const fail = (error) => {
  console.error(error)
  process.exit(1)
}

let count = 0
client.on('error', fail)
client.on('message', (topic, payload) => {
  if (!payload.equals(sent[count])) fail(`${payload.length} bytes came`)
  if (++count === sent.length) {
    console.log('echoed')
    // The server may be gone before WebSocket and TLS have said what they say at the end.
    client.off('error', fail).on('error', () => {})
    client.end()
  } else {
    client.publish('echo', sent[count], { qos: count })
  }
})
client.subscribe('echo', { qos: 2 }, (error) => {
  if (error) fail(error)
  client.publish('echo', sent[0], { qos: 0 })
})
