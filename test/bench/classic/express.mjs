// The classic handler: a web server in the container, spoken to over HTTP on the bridge. Echoes the body.
import express from 'express'

const app = express()
app.use(express.raw({ type: () => true, limit: '16mb' }))
app.all('/{*path}', (request, response) => response.send(request.body))
app.listen(8000, '0.0.0.0')
