# Rack middleware for Puma in single mode: from TERM on every answer says
# Connection: close, and Puma is stopped when the linger is over.
class Leave
  LINGER = 1 # second, in which clients make one more request, whose answer tells them

  def initialize(app)
    @app = app
    @leaving = false
    trap('TERM') { leave } # the app is loaded after Puma has set its own trap
  end

  def call(env)
    @app.call(env)
  ensure
    env['HTTP_CONNECTION'] = 'close' if @leaving # Puma, which looks now, answers as if the client had asked for it
  end

  private

  def leave
    return if @leaving

    @leaving = true
    Thread.new do
      sleep LINGER
      Process.kill('INT', Process.pid) # Puma's other way to stop
    end
  end
end
